//! What the containers of one checkpoint have in common, and the parts of a vocabulary.

use std::io::Write as _;
use std::path::PathBuf;

use super::*;
use crate::asr::whisper::WhisperModel;
use crate::asr::whisper::config::{GenerationConfig, WhisperConfig};

/// `CUEWIRE_TEST_MODELS` names a folder with Hugging Face folders of OpenAI's models, `tiny.en` and `base`, and beside
/// them the same in other containers: `tiny.en-ct2`, `tiny.en-f16.bin`, `tiny.en-q8_0.bin` and so on.
fn models(name: &str) -> Option<PathBuf> {
    let skipped = match std::env::var_os("CUEWIRE_TEST_MODELS").map(|folder| PathBuf::from(folder).join(name)) {
        Some(path) if path.exists() => return Some(path),
        Some(path) => format!("SKIPPED: there is no {}\n", path.display()),
        None => format!("SKIPPED: CUEWIRE_TEST_MODELS is not set; it should name a folder that holds {name}\n"),
    };
    // Not `eprintln!`: what tests print that way is shown only when they fail.
    std::io::stderr().write_all(skipped.as_bytes()).unwrap();
    None
}

#[test]
fn every_container_has_the_same_tokens_masks_and_heads() {
    for name in ["tiny.en", "base"] {
        let Some(path) = models(name) else { continue };
        let ours = WhisperModel::load(path).unwrap();
        for ending in ["-ct2", "-ct2-int8", "-f16.bin", "-q8_0.bin", "-q5_1.bin", "-q5_0.bin", "-q4_1.bin", "-q4_0.bin"]
        {
            let Some(path) = models(&format!("{name}{ending}")) else { continue };
            let theirs = WhisperModel::load(path).unwrap();
            let case = format!("{name}{ending}");
            assert_eq!(theirs.mask, ours.mask, "{case}");
            assert_eq!(theirs.first_mask, ours.first_mask, "{case}");
            assert_eq!(theirs.generation.alignment_heads, ours.generation.alignment_heads, "{case}");
            assert_eq!(theirs.info().languages, ours.info().languages, "{case}");
            let sizes = |config: &WhisperConfig| {
                let c = config.clone();
                let layers = [c.encoder_layers, c.decoder_layers, c.encoder_attention_heads, c.decoder_attention_heads];
                let widths = [c.d_model, c.encoder_ffn_dim, c.decoder_ffn_dim, c.vocab_size, c.num_mel_bins];
                (layers, widths, c.max_source_positions, c.max_target_positions)
            };
            assert_eq!(sizes(&theirs.config), sizes(&ours.config), "{case}");
            let steering = |model: &WhisperModel| {
                let t = &model.tokens;
                (t.end, t.start, t.transcribe, t.no_speech, t.no_timestamps, t.languages.clone(), t.special.clone())
            };
            assert_eq!(steering(&theirs), steering(&ours), "{case}");
            for id in 0..ours.tokens.end {
                assert_eq!(theirs.tokens.text(&[id]), ours.tokens.text(&[id]), "{case}: token {id}");
            }
        }
    }
}

/// Every token is encoded as itself, and text by the merges that were told from the ranks as by those of the original.
#[test]
fn merges_are_told_from_ranks() {
    for name in ["tiny.en", "base"] {
        let Some(path) = models(name) else { continue };
        let json = text(&path.join("tokenizer.json")).unwrap();
        let vocabulary = Ranks::parse(&json).unwrap();
        let special = openai::special(if name == "base" { 51_865 } else { 51_864 }).unwrap();
        let parse = |json: &str| json.parse::<tokenizers::Tokenizer>().unwrap();
        let (theirs, ours) = (parse(&json), parse(&vocabulary.tokenizer(&special)));
        // Not the file's merges, of which some copies have lost the first: each token by itself, unless it is several words.
        for id in 256..special[0].0 {
            let token = ours.decode(&[id], false).unwrap();
            let one_word = token.strip_prefix(' ').unwrap_or(&token).chars().all(|c| c.is_ascii_alphabetic());
            if one_word && !token.is_empty() {
                assert_eq!(ours.encode(token.as_str(), false).unwrap().get_ids(), [id], "{name}: {token:?}");
            }
        }
        if theirs.encode(" the", false).unwrap().get_ids().len() > 1 {
            std::io::stderr().write_all(format!("SKIPPED: {name}/tokenizer.json lacks merges\n").as_bytes()).unwrap();
            continue;
        }
        for sample in [
            "The quick brown fox jumps over the lazy dog, doesn't it?  Twice\n\n -- 1234567 times!",
            "Ελλάδα, Україна, 日本語の文章、한국어 문장, العربية, हिन्दी, ไทย … ♪♪♪ naïve café 🎉👩‍👩‍👧",
            " supercalifragilisticexpialidocious antidisestablishmentarianism <|endoftext|> ΩΩΩ",
        ] {
            let encode =
                |tokenizer: &tokenizers::Tokenizer| tokenizer.encode(sample, false).unwrap().get_ids().to_vec();
            assert_eq!(encode(&ours), encode(&theirs), "{name}: {sample}");
        }
    }
}

/// The list that the file of the original has, computed from its vocabulary.
#[test]
fn openai_s_default_lists_are_computed() {
    for name in ["tiny.en", "base"] {
        let Some(path) = models(name) else { continue };
        let vocabulary = Ranks::parse(&text(&path.join("tokenizer.json")).unwrap()).unwrap();
        let config = WhisperConfig::parse("", &text(&path.join("config.json")).unwrap()).unwrap();
        let json = text(&path.join("generation_config.json")).unwrap();
        let generation = GenerationConfig::parse("", Some(&json), &config).unwrap();
        let special = openai::special(config.vocab_size).unwrap();
        let end = special[0].0;
        let mut listed = generation.suppress_tokens.unwrap().tokens;
        listed.retain(|id| *id < end);
        assert_eq!(non_speech(&vocabulary), listed, "{name}");
        assert_eq!(blank(&vocabulary, end), generation.begin_suppress_tokens.unwrap().tokens, "{name}");
        assert_eq!(alignment_heads(&config), generation.alignment_heads, "{name}");
    }
}

#[test]
fn what_openai_s_option_calls_minus_one_is_the_default_list() {
    let config = serde_json::json!({
        "vocab_size": 51864, "num_mel_bins": 80, "d_model": 384, "encoder_layers": 4, "decoder_layers": 4,
        "encoder_attention_heads": 6, "decoder_attention_heads": 6, "encoder_ffn_dim": 1536, "decoder_ffn_dim": 1536,
        "max_source_positions": 1500, "max_target_positions": 448, "suppress_tokens": [-1, 5],
    });
    let config = WhisperConfig::parse("", &config.to_string()).unwrap();
    let json = r#"{"alignment_heads": null, "suppress_tokens": null, "begin_suppress_tokens": [220, -1]}"#;
    let generation = GenerationConfig::parse("", Some(json), &config).unwrap();
    let suppressed = generation.suppress_tokens.unwrap();
    assert_eq!((suppressed.tokens.as_slice(), suppressed.default), (&[5][..], true));
    let first = generation.begin_suppress_tokens.unwrap();
    assert_eq!((first.tokens.as_slice(), first.default), (&[220][..], true));
    assert_eq!(generation.alignment_heads.first(), Some(&(1, 0)), "those of OpenAI's model of this shape");
}

#[test]
fn tokens_that_were_added_may_be_text() {
    let ids = |tokens: &[(&str, u32)]| tokens.iter().map(|(token, id)| (token.to_string(), *id)).collect();
    let vocabulary = ids(&[("a", 0), ("b", 1), ("ab", 2), ("<|endoftext|>", 3)]);
    let added = ids(&[("<|en|>", 4), ("<|0.00|>", 5), ("Grüße", 6)]);
    let json: serde_json::Value = serde_json::from_str(&ranks::tokenizer(vocabulary, added)).unwrap();
    let added = json["added_tokens"].as_array().unwrap().iter();
    let added: Vec<_> = added.map(|token| (token["content"].as_str().unwrap(), token["special"] == true)).collect();
    assert_eq!(added, [("<|endoftext|>", true), ("<|en|>", true), ("Grüße", false)]);
    assert_eq!(json["model"]["vocab"], serde_json::json!({"a": 0, "b": 1, "ab": 2}));
    assert_eq!(json["model"]["merges"], serde_json::json!(["a b"]));
}

#[test]
fn a_vocabulary_encodes_by_rank() {
    let mut tokens: Vec<Vec<u8>> = (0..=255).map(|byte| vec![byte]).collect();
    tokens.extend(["ab", "bc", "abc", "abcabc", " abc"].iter().map(|token| token.as_bytes().to_vec()));
    let vocabulary = Ranks::new(tokens);
    for (text, ids) in [
        ("", vec![]),
        ("a", vec![97]),
        ("abc", vec![258]),
        ("bc", vec![257]),
        ("bcab", vec![257, 256]),
        ("abcabcab", vec![259, 256]),
        (" abc", vec![260]),
    ] {
        assert_eq!(vocabulary.encode(text.as_bytes()), ids, "{text}");
    }
    let special = [(261, "<|endoftext|>".to_string())];
    let tokenizer = vocabulary.tokenizer(&special).parse::<tokenizers::Tokenizer>().unwrap();
    let encoded = tokenizer.encode("abcabc abc<|endoftext|>é", false).unwrap();
    assert_eq!(encoded.get_ids(), [259, 260, 261, 0xc3, 0xa9]);
    assert_eq!(Ranks::parse(&vocabulary.tokenizer(&special)).unwrap().encode(b"abcab"), [258, 256]);
}
