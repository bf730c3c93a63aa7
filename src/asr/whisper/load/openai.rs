//! What OpenAI's models are known to be, where a file does not say it.
//!
//! In: sizes, and the tokens of text. Out: the tokens that steer, those that are never said, the heads that follow the
//! audio.

use super::super::config::WhisperConfig;
use super::ranks::Ranks;

/// Languages in the order of their tokens: openai/whisper, `tokenizer.py`. The models before large-v3 lack the last.
const LANGUAGES: &str = "en zh de es ru ko fr ja pt tr pl ca nl ar sv it id hi fi vi he uk el ms cs ro da hu ta no th ur \
    hr bg lt la mi ml cy sk te fa lv bn sr az sl kn et mk br eu is hy ne mn bs kk sq sw gl mr pa si km sn yo so af oc ka \
    be tg sd gu am yi lo uz fo ht ps tk nn mt sa lb my bo tl mg as tt haw ln ha ba jw su yue";

/// Sizes of a vocabulary: of English alone, of all languages, and with Cantonese.
pub(super) const VOCABULARIES: [usize; 3] = [51_864, 51_865, 51_866];

/// The tokens that steer and their ids, the end of text first; `None` for a vocabulary that is not OpenAI's.
pub(super) fn special(vocabulary: usize) -> Option<Vec<(u32, String)>> {
    let (end, languages) = match VOCABULARIES.iter().position(|size| *size == vocabulary)? {
        0 => (50_256, 99),
        1 => (50_257, 99),
        _ => (50_257, 100),
    };
    let steering = ["translate", "transcribe", "startoflm", "startofprev", "nospeech", "notimestamps"];
    let names = ["endoftext", "startoftranscript"]
        .into_iter()
        .chain(LANGUAGES.split_whitespace().take(languages))
        .chain(steering)
        .map(|name| format!("<|{name}|>"));
    Some((end..).zip(names).collect())
}

/// Tokens of text that stand for no speech: openai/whisper, `tokenizer.py`, `non_speech_tokens`.
pub(crate) fn non_speech(vocabulary: &Ranks) -> Vec<u32> {
    let signs = "\" # ( ) * + / : ; < = > @ [ \\ ] ^ _ ` { | } ~ 「 」 『 』 \
        << >> <<< >>> -- --- -( -[ (' (\" (( )) ((( ))) [[ ]] {{ }} ♪♪ ♪♪♪";
    let encode = |text: &str| vocabulary.encode(text.as_bytes());
    // Hyphens and quotes are said within words, not at their beginning.
    let mut ids: Vec<u32> = [" -", " '"].into_iter().filter_map(|text| encode(text).first().copied()).collect();
    for sign in signs.split(' ').filter(|sign| !sign.is_empty()) {
        for text in [sign.to_string(), format!(" {sign}")] {
            if let [id] = encode(&text)[..] {
                ids.push(id);
            }
        }
    }
    // Where notes are several tokens, the first of them stands for such signs alone.
    for note in ["♩", "♪", "♫", "♬", "♭", "♮", "♯"] {
        ids.extend([note.to_string(), format!(" {note}")].iter().filter_map(|text| encode(text).first().copied()));
    }
    ids.sort_unstable();
    ids.dedup();
    ids
}

/// Tokens that a text does not begin with: the space alone, and the end (openai/whisper, `decoding.py`,
/// `SuppressBlank`).
pub(crate) fn blank(vocabulary: &Ranks, end: u32) -> Vec<u32> {
    vocabulary.encode(b" ").into_iter().chain([end]).collect()
}

/// Heads of cross-attention that follow the audio, as (layer, head), by a model's shape: openai/whisper, `__init__.py`,
/// `_ALIGNMENT_HEADS`, unpacked in whisper.cpp, `g_aheads_…`. The two first large models have one shape: these are those
/// of the second. Empty for any other shape.
pub(crate) fn alignment_heads(config: &WhisperConfig) -> &'static [(usize, usize)] {
    match (config.size(), config.vocab_size == VOCABULARIES[0]) {
        ("tiny", true) => &[(1, 0), (2, 0), (2, 5), (3, 0), (3, 1), (3, 2), (3, 3), (3, 4)],
        ("tiny", false) => &[(2, 2), (3, 0), (3, 2), (3, 3), (3, 4), (3, 5)],
        ("base", true) => &[(3, 3), (4, 7), (5, 1), (5, 5), (5, 7)],
        ("base", false) => &[(3, 1), (4, 2), (4, 3), (4, 7), (5, 1), (5, 2), (5, 4), (5, 6)],
        ("small", true) => &[
            (6, 6),
            (7, 0),
            (7, 3),
            (7, 8),
            (8, 2),
            (8, 5),
            (8, 7),
            (9, 0),
            (9, 4),
            (9, 8),
            (9, 10),
            (10, 0),
            (10, 1),
            (10, 2),
            (10, 3),
            (10, 6),
            (10, 11),
            (11, 2),
            (11, 4),
        ],
        ("small", false) => &[(5, 3), (5, 9), (8, 0), (8, 4), (8, 7), (8, 8), (9, 0), (9, 7), (9, 9), (10, 5)],
        ("medium", true) => &[
            (11, 4),
            (14, 1),
            (14, 12),
            (14, 14),
            (15, 4),
            (16, 0),
            (16, 4),
            (16, 9),
            (17, 12),
            (17, 14),
            (18, 7),
            (18, 10),
            (18, 15),
            (20, 0),
            (20, 3),
            (20, 9),
            (20, 14),
            (21, 12),
        ],
        ("medium", false) => &[(13, 15), (15, 4), (15, 15), (16, 1), (20, 0), (23, 4)],
        ("large", false) => &[
            (10, 12),
            (13, 17),
            (16, 11),
            (16, 12),
            (16, 13),
            (17, 15),
            (17, 16),
            (18, 4),
            (18, 11),
            (18, 19),
            (19, 11),
            (21, 2),
            (21, 3),
            (22, 3),
            (22, 9),
            (22, 12),
            (23, 5),
            (23, 7),
            (23, 13),
            (25, 5),
            (26, 1),
            (26, 12),
            (27, 15),
        ],
        ("large-v3", false) => {
            &[(7, 0), (10, 17), (12, 18), (13, 12), (16, 1), (17, 14), (19, 11), (21, 4), (24, 1), (25, 6)]
        }
        ("large-v3-turbo", false) => &[(2, 4), (2, 11), (3, 3), (3, 6), (3, 11), (3, 14)],
        _ => &[],
    }
}
