//! What becomes of tokens and texts: tokenizers, rules, stable prefixes, guards.

use arbitrary::{Result, Unstructured};

use super::transcript::text as any_text;
use crate::asr::HeardWord;
use crate::asr::whisper::fuzz::{tokenizer, tokens};
use crate::asr::whisper::{Guards, compression_ratio};
use crate::caption::{Rules, StablePrefix};
use crate::config::{Replacement, Replacements, Stability, TextRules, Words};

/// Reads `data` as a tokenizer, as tokens, or as texts and the rules for them.
///
/// # Panics
/// Where text that was encoded decodes to another, where words are not the text that they belong to, or where an interim
/// takes a stable word back.
pub fn text(data: &[u8]) {
    let Some((how, data)) = data.split_first() else { return };
    // Where the bytes are over, so is the run.
    let _ = match how % 4 {
        0 => {
            tokenizer(data);
            Ok(())
        }
        1 => {
            tokens(data);
            Ok(())
        }
        2 => rules(&mut Unstructured::new(data)),
        _ => prefixes(&mut Unstructured::new(data)),
    };
}

fn rules(u: &mut Unstructured<'_>) -> Result<()> {
    let mut rows = Vec::new();
    for _ in 0..u.int_in_range(0..=6)? {
        rows.push(Replacement { from: any_text(u, 4)?, to: any_text(u, 4)? });
    }
    let (Ok(replacements), Ok(masked_words)) = (Replacements::try_from(rows), Words::try_from(vec![any_text(u, 3)?]))
    else {
        return Ok(());
    };
    let settings =
        TextRules { replacements, masked_words, mask_profanity: u.arbitrary()?, keep_sound_tags: u.arbitrary()? };
    let rules = Rules::new(&settings);
    let text = any_text(u, 60)?;
    let text = rules.without_open_tag(text.trim());
    let (mut heard, mut end) = (Vec::new(), 0_u32);
    for word in text.split_whitespace() {
        let start = end.saturating_add(u.arbitrary::<u16>()?.into());
        end = start.saturating_add(u.arbitrary::<u16>()?.into());
        heard.push(HeardWord { text: word.to_string(), start, end, probability: 0.5 });
    }
    let last = end;
    let (shown, words) = rules.apply(text, heard);
    if words.is_empty() {
        return Ok(());
    }
    let joined = words.iter().map(|word| word.text.as_str()).collect::<Vec<_>>().join(" ");
    let spaced = shown.split_whitespace().collect::<Vec<_>>().join(" ");
    assert_eq!(joined, spaced, "the words are the text: {text:?}");
    assert!(
        words.iter().all(|word| word.start <= word.end && word.end <= last),
        "words lie where they were heard: {words:?}"
    );
    Ok(())
}

fn prefixes(u: &mut Unstructured<'_>) -> Result<()> {
    let stability = *u.choose(&[Stability::Low, Stability::Medium, Stability::High])?;
    let mut prefix = StablePrefix::new(stability);
    let mut stable = String::new();
    let mut text = any_text(u, 30)?;
    for _ in 0..u.int_in_range(1..=12)? {
        // Most hypotheses begin as the one before.
        let kept = text.char_indices().nth(u.int_in_range(0..=40)?).map_or(text.len(), |(at, _)| at);
        text.truncate(kept);
        text.push_str(&any_text(u, 12)?);
        let (shown, chars) = prefix.advance(text.trim(), u.int_in_range(0..=3)?);
        assert!(chars <= shown.chars().count(), "no more is stable than is shown: {shown:?}");
        let now: String = shown.chars().take(chars).collect();
        assert!(now.starts_with(&stable), "{stable:?} was stable, and then {now:?}");
        stable = now;
        let ratio = compression_ratio(&text);
        assert!(ratio.is_finite(), "a ratio is a number: {ratio}");
        let samples = usize::from(u.arbitrary::<u16>()?) * 16;
        let (no_speech, mean) = (u.arbitrary::<f32>()?, u.arbitrary::<f32>()?);
        let _ = Guards::default().judge(&text, samples, u.arbitrary()?, no_speech, mean);
    }
    Ok(())
}
