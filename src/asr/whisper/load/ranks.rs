//! A vocabulary without its merges: byte pair encoding by rank alone.
//!
//! In: the bytes of each token of text, in the order of their ids. Out: the ids of a piece of text, and a
//! `tokenizer.json` as Hugging Face has it. OpenAI's vocabularies are in the order in which their tokens were merged, so
//! that an id is a rank and the merges can be told from the tokens (openai/tiktoken, `educational.py`, `_bpe.rs`).

use std::collections::HashMap;

use serde::Deserialize;
use serde_json::{Value, json};

use crate::asr::whisper::bytes::{byte_of, char_of, merged};

/// No token is longer: the longest of OpenAI's has 128 bytes. Encoding takes time with the square of it.
pub(super) const LONGEST: usize = 256;

/// Whether a token steers by its name, as `<|en|>`. Timestamps, `<|0.00|>` and so on, are told by their place.
pub(super) fn steers(name: &str) -> bool {
    let inner = name.strip_prefix("<|").and_then(|name| name.strip_suffix("|>"));
    inner.is_some_and(|inner| inner.parse::<f32>().is_err())
}

/// A `tokenizer.json` from names and their ids: those of `vocab.json`, and those of `added_tokens.json`.
pub(super) fn tokenizer(vocabulary: HashMap<String, u32>, added: HashMap<String, u32>) -> String {
    let bytes = |token: &str| token.chars().map(byte_of).collect::<Option<Vec<u8>>>();
    let (mut others, texts): (Vec<_>, Vec<_>) = vocabulary.into_iter().partition(|(name, _)| steers(name));
    // Those that a fine-tune added may be text.
    others.extend(added.into_iter().filter(|(name, _)| steers(name) || !name.starts_with("<|")));
    let mut others: Vec<(u32, String)> = others.into_iter().map(|(name, id)| (id, name)).collect();
    others.sort_unstable();
    let ranks = texts.into_iter().filter_map(|(token, id)| Some((bytes(&token)?, id))).collect();
    Ranks { ranks }.tokenizer(&others)
}

/// Tokens of text and their ids.
pub(crate) struct Ranks {
    ranks: HashMap<Vec<u8>, u32>,
}

impl Ranks {
    /// From tokens in the order of their ids.
    pub(super) fn new(tokens: impl IntoIterator<Item = Vec<u8>>) -> Self {
        let mut ranks = HashMap::new();
        for (id, token) in (0..).zip(tokens) {
            ranks.entry(token).or_insert(id);
        }
        Self { ranks }
    }

    /// From a `tokenizer.json`.
    pub(crate) fn parse(json: &str) -> Result<Self, serde_json::Error> {
        #[derive(Deserialize)]
        struct File {
            model: Model,
        }
        #[derive(Deserialize)]
        struct Model {
            vocab: HashMap<String, u32>,
        }
        let File { model } = serde_json::from_str(json)?;
        let token = |text: &str| text.chars().map(byte_of).collect::<Option<Vec<u8>>>();
        Ok(Self { ranks: model.vocab.iter().filter_map(|(text, id)| Some((token(text)?, *id))).collect() })
    }

    /// The ids of a piece of text that is not to be split before: a word, or signs, with the space before it.
    pub(crate) fn encode(&self, piece: &[u8]) -> Vec<u32> {
        self.parts(piece, u32::MAX).into_iter().filter_map(|part| self.ranks.get(part).copied()).collect()
    }

    /// What is left of `piece` when all merges of ranks below `limit` were done.
    fn parts<'a>(&self, piece: &'a [u8], limit: u32) -> Vec<&'a [u8]> {
        merged(piece, |part| self.ranks.get(part).copied().filter(|rank| *rank < limit))
    }

    /// Hugging Face's `tokenizer.json` with these tokens beside those that are made by merges.
    pub(super) fn tokenizer(&self, special: &[(u32, String)]) -> String {
        let text = |token: &[u8]| token.iter().copied().map(char_of).collect::<String>();
        let mut tokens: Vec<(&Vec<u8>, u32)> = self.ranks.iter().map(|(token, rank)| (token, *rank)).collect();
        tokens.sort_unstable_by_key(|(_, rank)| *rank);
        let merges: Vec<String> = tokens
            .iter()
            .filter(|(token, _)| token.len() <= LONGEST)
            .filter_map(|(token, rank)| match self.parts(token, *rank)[..] {
                [left, right] => Some(format!("{} {}", text(left), text(right))),
                _ => None,
            })
            .collect();
        let vocab: serde_json::Map<String, Value> =
            tokens.iter().map(|(token, rank)| (text(token), json!(rank))).collect();
        let added: Vec<Value> = special
            .iter()
            .map(|(id, content)| {
                json!({
                    "id": id, "content": content, "single_word": false, "lstrip": false, "rstrip": false,
                    "normalized": false, "special": steers(content),
                })
            })
            .collect();
        json!({
            "version": "1.0", "truncation": null, "padding": null, "added_tokens": added, "normalizer": null,
            "pre_tokenizer": {"type": "ByteLevel", "add_prefix_space": false, "trim_offsets": true, "use_regex": true},
            "post_processor": null,
            "decoder": {"type": "ByteLevel", "add_prefix_space": true, "trim_offsets": true, "use_regex": true},
            "model": {
                "type": "BPE", "dropout": null, "unk_token": null, "continuing_subword_prefix": "",
                "end_of_word_suffix": "", "fuse_unk": false, "vocab": vocab, "merges": merges,
            },
        })
        .to_string()
    }
}
