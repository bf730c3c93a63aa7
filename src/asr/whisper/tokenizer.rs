//! Tokens to text, and the ids of the tokens that steer.
//!
//! In: `tokenizer.json`. Out: text; ids found by name, so that every generation of models is read (large-v3 has one
//! language more and all later ids shifted; older files call `<|nospeech|>` `<|nocaptions|>`).

use std::collections::HashMap;

use serde::Deserialize;
use tokenizers::Tokenizer;
use tokenizers::decoders::byte_level::ByteLevel;
use tokenizers::models::bpe::{BPE, Vocab};

use super::bytes::{byte_of, char_of, merged, pieces};
use super::error::ModelError;
use crate::config::Language;

/// What decoding needs of `tokenizer.json`. The tokenizer is built from this and not from the whole file, parts of
/// which the `tokenizers` crate takes on trust, and whose merges only encoding needs.
#[derive(Deserialize)]
struct File {
    added_tokens: Vec<AddedToken>,
    model: Model,
}

#[derive(Deserialize)]
struct AddedToken {
    id: u32,
    content: String,
    special: bool,
}

#[derive(Deserialize)]
struct Model {
    vocab: HashMap<String, u32>,
}

/// The vocabulary and its special tokens.
pub(crate) struct Tokens {
    tokenizer: Tokenizer,
    /// End of text: the first id that is no text.
    pub(crate) end: u32,
    /// Start of transcript.
    pub(crate) start: u32,
    pub(crate) transcribe: u32,
    /// `None` for a model that does not translate.
    pub(crate) translate: Option<u32>,
    /// Start of what was said before, or is told instead.
    pub(crate) previous: u32,
    pub(crate) no_speech: u32,
    pub(crate) no_timestamps: u32,
    /// The languages that cuewire captions and the model has; empty for a model of English alone.
    pub(crate) languages: Vec<(Language, u32)>,
    /// Ids that steer and are never text, the end left out.
    pub(crate) special: Vec<u32>,
}

impl Tokens {
    /// `multilingual`: whether the language tokens mean anything.
    pub(crate) fn parse(file: &str, json: &str, multilingual: bool, vocabulary: usize) -> Result<Self, ModelError> {
        let failed = |reason: String| ModelError::Json { file: file.to_string(), reason };
        let File { added_tokens, model } = serde_json::from_str(json).map_err(|e| failed(e.to_string()))?;
        let mut vocab: Vocab = model.vocab.into_iter().collect();
        vocab.extend(added_tokens.iter().map(|token| (token.content.clone(), token.id)));
        let bpe = BPE::builder().vocab_and_merges(vocab, Vec::new()).cache_capacity(0).build();
        let mut tokenizer = Tokenizer::new(bpe.map_err(|e| failed(e.to_string()))?);
        tokenizer.with_decoder(Some(ByteLevel::default()));
        let known = |name: &str| tokenizer.token_to_id(name).filter(|&id| (id as usize) < vocabulary);
        let find = |names: &[&str]| {
            names.iter().find_map(|name| known(name)).ok_or_else(|| ModelError::Token {
                token: names.join("` or `"),
                problem: format!("is missing, or its id is not below vocab_size ({vocabulary})"),
            })
        };
        let end = find(&["<|endoftext|>"])?;
        let no_timestamps = find(&["<|notimestamps|>"])?;
        // Timestamps are in no tokenizer.json of the older models: they follow <|notimestamps|> in the vocabulary.
        let mut special: Vec<u32> = (no_timestamps..vocabulary as u32).collect();
        special.extend(added_tokens.iter().filter(|token| token.special).map(|token| token.id));
        special.retain(|&id| id != end && (id as usize) < vocabulary);
        special.sort_unstable();
        special.dedup();
        let languages = Language::all()
            .filter_map(|language| {
                // The first tokenizers call Hebrew by its older code.
                let older = (language.code() == "he").then_some("<|iw|>");
                Some((language, known(&format!("<|{language}|>")).or_else(|| known(older?))?))
            })
            .filter(|_| multilingual)
            .collect();
        Ok(Self {
            end,
            start: find(&["<|startoftranscript|>"])?,
            transcribe: find(&["<|transcribe|>"])?,
            translate: known("<|translate|>").filter(|_| multilingual),
            previous: find(&["<|startofprev|>"])?,
            no_speech: find(&["<|nospeech|>", "<|nocaptions|>"])?,
            no_timestamps,
            languages,
            special,
            tokenizer,
        })
    }

    /// The highest id that it names.
    pub(crate) fn last(&self) -> u32 {
        self.tokenizer.get_vocab(true).into_values().max().unwrap_or_default()
    }

    /// The id of a token by its name.
    pub(crate) fn id(&self, name: &str) -> Option<u32> {
        self.tokenizer.token_to_id(name)
    }

    /// The text of `tokens`, none of them special, trimmed.
    pub(crate) fn text(&self, tokens: &[u32]) -> Result<String, String> {
        self.tokenizer.decode(tokens, false).map(|text| text.trim().to_string()).map_err(|e| e.to_string())
    }

    /// The bytes of a token of text; none of any other.
    pub(crate) fn bytes(&self, token: u32) -> Vec<u8> {
        let text = self.tokenizer.id_to_token(token).filter(|_| token < self.end);
        text.map_or(Vec::new(), |text| text.chars().filter_map(byte_of).collect())
    }

    /// The tokens of a text. Ids are in the order of the merges that made them, as tiktoken's ranks: of two neighbours
    /// those are joined first whose token has the lowest id.
    pub(crate) fn encode(&self, text: &str) -> Vec<u32> {
        let id = |bytes: &[u8]| {
            let name: String = bytes.iter().copied().map(char_of).collect();
            self.tokenizer.token_to_id(&name).filter(|&id| id < self.end)
        };
        let mut tokens = Vec::new();
        for piece in pieces(text) {
            tokens.extend(merged(piece.as_bytes(), id).into_iter().filter_map(id));
        }
        tokens
    }
}
