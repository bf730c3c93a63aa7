//! Tokenizers of any JSON, and any text through one that is whole. For the fuzz targets.

#![allow(clippy::panic, reason = "a broken promise is a panic here")]

use std::sync::OnceLock;

use serde_json::{Map, Value, json};

use super::bytes::char_of;
use super::guards::looped;
use super::tokenizer::Tokens;

/// More tokens than any vocabulary here has.
const VOCABULARY: usize = 400;

/// Reads `data` as a `tokenizer.json`, and uses it where it is one.
///
/// # Panics
/// Where that does.
pub(crate) fn tokenizer(data: &[u8]) {
    let Ok(json) = std::str::from_utf8(data) else { return };
    let Ok(tokens) = Tokens::parse("fuzz", json, true, VOCABULARY) else { return };
    let ids = tokens.encode("hello there, Dr. Lee 42");
    drop(tokens.text(&ids));
    for id in 0..VOCABULARY as u32 {
        drop(tokens.bytes(id));
    }
    tokens.last();
}

/// Encodes `data` where it is text; otherwise takes it for tokens.
///
/// # Panics
/// Where text does not come back as it was.
pub(crate) fn tokens(data: &[u8]) {
    let tokens = whole();
    if let Ok(text) = std::str::from_utf8(data) {
        let ids = tokens.encode(text);
        assert!(ids.iter().all(|&id| id < tokens.end), "text has no tokens that steer");
        assert_eq!(tokens.text(&ids).as_deref(), Ok(text.trim()), "text survives being encoded");
        let bytes: Vec<u8> = ids.iter().flat_map(|&id| tokens.bytes(id)).collect();
        assert_eq!(bytes, text.as_bytes(), "and so do its bytes");
    }
    let ids: Vec<u32> = data.iter().map(|&byte| u32::from(byte)).collect();
    drop(tokens.text(&ids));
    if let Some(phrase) = looped(&ids) {
        assert!(!phrase.is_empty() && phrase.end <= ids.len(), "a loop is one of what was said: {phrase:?}");
    }
}

/// All bytes, some words, and what steers.
fn whole() -> &'static Tokens {
    static WHOLE: OnceLock<Tokens> = OnceLock::new();
    WHOLE.get_or_init(|| {
        let mut vocabulary: Vec<String> = (0..=255).map(|byte| char_of(byte).to_string()).collect();
        for word in ["th", "the", " t", " the", "ing", "in", "er", " a", "42", "e\u{301}", "\u{440}\u{438}"] {
            vocabulary.push(word.bytes().map(char_of).collect());
        }
        let names = [
            "endoftext",
            "startoftranscript",
            "en",
            "translate",
            "transcribe",
            "startofprev",
            "nospeech",
            "notimestamps",
        ];
        let added: Vec<Value> = (vocabulary.len()..)
            .zip(names)
            .map(|(id, name)| json!({"id": id, "content": format!("<|{name}|>"), "special": true}))
            .collect();
        let ids: Map<String, Value> = vocabulary.into_iter().zip(0..).map(|(token, id)| (token, json!(id))).collect();
        let json = json!({"added_tokens": added, "model": {"vocab": ids}}).to_string();
        match Tokens::parse("fuzz", &json, true, VOCABULARY) {
            Ok(tokens) => tokens,
            Err(error) => panic!("the whole tokenizer is refused: {error}"),
        }
    })
}
