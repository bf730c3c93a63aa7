//! Names of sounds in a text: `[Music]`, `(applause)`, `*sigh*`, `♪`.
//!
//! In: a text. Out: where they stand.

use std::ops::Range;

/// What opens the name of a sound, and what closes it.
const BRACKETS: [(char, char); 5] = [('[', ']'), ('(', ')'), ('【', '】'), ('（', '）'), ('*', '*')];

/// Names of sounds, brackets included, and notes; in bytes, in order, none within another. A bracket that never closes
/// encloses nothing.
pub(crate) fn sound_tags(text: &str) -> Vec<Range<usize>> {
    let mut tags: Vec<Range<usize>> = Vec::new();
    // What is open: where, and what closes it.
    let mut open: Vec<(usize, char)> = Vec::new();
    for (at, c) in text.char_indices() {
        let end = at + c.len_utf8();
        if let Some(depth) = open.iter().rposition(|&(_, close)| close == c) {
            let from = open[depth].0;
            open.truncate(depth);
            tags.retain(|tag| tag.start < from);
            tags.push(from..end);
        } else if let Some(&(_, close)) = BRACKETS.iter().find(|(bracket, _)| *bracket == c) {
            open.push((at, close));
        } else if matches!(c, '♪' | '♫' | '♬') {
            tags.push(at..end);
        }
    }
    tags
}

/// Whether a text has a word beside names of sounds and punctuation.
pub(crate) fn has_words(text: &str) -> bool {
    let tags = sound_tags(text);
    text.char_indices().any(|(at, c)| c.is_alphanumeric() && !tags.iter().any(|tag| tag.contains(&at)))
}

/// Where the name of a sound begins that has not ended yet; interims end anywhere.
pub(crate) fn open_tag(text: &str) -> Option<usize> {
    let tags = sound_tags(text);
    let outside = |at: &usize| !tags.iter().any(|tag| tag.contains(at));
    let opens = |c: char| BRACKETS.iter().any(|(bracket, _)| *bracket == c);
    text.char_indices().filter(|&(_, c)| opens(c)).map(|(at, _)| at).find(outside)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn tags_are_what_brackets_enclose() {
        for (text, tags) in [
            ("[Music] Hello (applause) *sighs* ♪ world", &["[Music]", "(applause)", "*sighs*", "♪"][..]),
            ("Hello [[Music] x] there", &["[[Music] x]"]),
            ("(Hello [Music]", &["[Music]"]),
            ("笑（笑）【拍手】", &["（笑）", "【拍手】"]),
            ("a ] b ) * c", &[]),
            ("[a (b] c)", &["[a (b]"]),
        ] {
            let found: Vec<&str> = sound_tags(text).into_iter().map(|tag| &text[tag]).collect();
            assert_eq!(found, tags, "{text}");
        }
        assert_eq!(open_tag("Hello (laugh"), Some(6));
        assert_eq!(open_tag("Hello (laughs) you"), None);
    }
}
