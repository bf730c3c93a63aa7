//! What is changed in a recognised text before it is shown.
//!
//! In: the text of a hypothesis, its words perhaps. Out: the same without names of sounds, terms replaced, swear words
//! masked. Finals and interims pass through alike.

use std::collections::HashMap;
use std::ops::Range;

use crate::asr::HeardWord;
use crate::config::TextRules;
use crate::script::is_unspaced;

/// English words that `mask_profanity` masks.
const PROFANITY: &str = include_str!("profanity_en.txt");

/// [`TextRules`], ready to be applied.
#[derive(Debug, Default)]
pub(crate) struct Rules {
    /// By their first character, folded; the longest first.
    terms: HashMap<char, Vec<Term>>,
    keep_sound_tags: bool,
    /// Words of the longest term.
    longest: usize,
}

#[derive(Debug)]
struct Term {
    /// Folded; one space between words.
    chars: Vec<char>,
    /// `None`: masked.
    to: Option<String>,
}

/// A piece of the text, in bytes, and what stands in its place.
struct Edit {
    place: Range<usize>,
    to: String,
}

impl Rules {
    pub(crate) fn new(rules: &TextRules) -> Self {
        let mut this = Self { keep_sound_tags: rules.keep_sound_tags, ..Self::default() };
        for row in rules.replacements.rows() {
            this.add(&row.from, Some(row.to.clone()));
        }
        let profanity = PROFANITY.lines().filter(|_| rules.mask_profanity);
        for word in rules.masked_words.words().iter().map(String::as_str).chain(profanity) {
            this.add(word, None);
        }
        for terms in this.terms.values_mut() {
            // Stable: of equally long ones the earlier stays first.
            terms.sort_by_key(|term| std::cmp::Reverse(term.chars.len()));
        }
        this
    }

    fn add(&mut self, text: &str, to: Option<String>) {
        let words: Vec<&str> = text.split_whitespace().collect();
        let chars: Vec<char> = words.join(" ").chars().map(fold).collect();
        let Some(&first) = chars.first() else { return };
        self.longest = self.longest.max(words.len());
        self.terms.entry(first).or_default().push(Term { chars, to });
    }

    /// Words at the end of an unfinished text that may yet turn out to be the beginning of a longer term.
    pub(crate) fn undecided_words(&self) -> usize {
        self.longest.saturating_sub(1)
    }

    /// The text as it is shown, and its words.
    pub(crate) fn apply(&self, text: &str, words: Vec<HeardWord>) -> (String, Vec<HeardWord>) {
        let mut edits = if self.keep_sound_tags { Vec::new() } else { sound_tags(text) };
        if !self.terms.is_empty() {
            self.find_terms(text, &mut edits);
            edits.sort_by_key(|edit| edit.place.start);
        }
        if edits.is_empty() {
            return (text.to_string(), words);
        }
        let shown = edited(text, 0..text.len(), &edits);
        (shown, edit_words(text, words, &edits))
    }

    /// Adds terms, found from the left, where no edit is yet.
    fn find_terms(&self, text: &str, edits: &mut Vec<Edit>) {
        let taken: Vec<Range<usize>> = edits.iter().map(|edit| edit.place.clone()).collect();
        let chars: Vec<(usize, char)> = text.char_indices().collect();
        let mut at = 0;
        while at < chars.len() {
            let begins = at == 0 || is_boundary(chars[at - 1].1, chars[at].1);
            let terms = self.terms.get(&fold(chars[at].1)).filter(|_| begins);
            let found = terms.into_iter().flatten().find_map(|term| Some((term, matched(&chars[at..], &term.chars)?)));
            let Some((term, length)) = found else {
                at += 1;
                continue;
            };
            let end = chars.get(at + length).map_or(text.len(), |&(end, _)| end);
            // A comma goes with the word that it set apart.
            let comma = term.to.as_deref() == Some("") && text[end..].starts_with([',', '、']);
            let end = if comma { end + text[end..].chars().next().map_or(0, char::len_utf8) } else { end };
            let place = chars[at].0..end;
            if taken.iter().all(|taken| taken.end <= place.start || place.end <= taken.start) {
                let to = term.to.clone().unwrap_or_else(|| mask(&text[place.clone()]));
                edits.push(Edit { place, to });
            }
            at += length;
        }
    }
}

/// One character for one: enough to compare words.
fn fold(c: char) -> char {
    c.to_lowercase().next().unwrap_or(c)
}

/// How many characters of `text` the term takes, where it begins `text` and ends with a word.
fn matched(text: &[(usize, char)], term: &[char]) -> Option<usize> {
    let mut at = 0;
    for &wanted in term {
        let (_, c) = *text.get(at)?;
        if wanted == ' ' {
            let spaces = text[at..].iter().take_while(|(_, c)| c.is_whitespace()).count();
            at += (spaces > 0).then_some(spaces)?;
        } else {
            at += (fold(c) == wanted).then_some(1)?;
        }
    }
    let ends = at == text.len() || is_boundary(text[at - 1].1, text[at].1);
    ends.then_some(at)
}

/// Whether a word may end between two characters. Scripts without spaces end words anywhere.
fn is_boundary(before: char, after: char) -> bool {
    let joins = |c: char| (c.is_alphanumeric() || c == '\'' || c == '’') && !is_unspaced(c);
    !(joins(before) && joins(after)) || !(before.is_alphanumeric() || after.is_alphanumeric())
}

/// Its first character, and a star for each other one.
fn mask(word: &str) -> String {
    let mut chars = word.chars();
    chars.next().into_iter().chain(chars.map(|c| if c.is_alphanumeric() { '*' } else { c })).collect()
}

/// Names of sounds, brackets included, and notes.
fn sound_tags(text: &str) -> Vec<Edit> {
    let mut tags: Vec<Edit> = Vec::new();
    // What is open: where, and what closes it.
    let mut open: Option<(usize, char)> = None;
    for (at, c) in text.char_indices() {
        let end = at + c.len_utf8();
        match (open, c) {
            (Some((from, close)), _) if c == close => {
                tags.push(Edit { place: from..end, to: String::new() });
                open = None;
            }
            (None, '[') => open = Some((at, ']')),
            (None, '(') => open = Some((at, ')')),
            (None, '【') => open = Some((at, '】')),
            (None, '（') => open = Some((at, '）')),
            (None, '*') => open = Some((at, '*')),
            (None, '♪' | '♫' | '♬') => tags.push(Edit { place: at..end, to: String::new() }),
            _ => {}
        }
    }
    tags
}

/// A part of the text with its edits made, white space in single spaces.
fn edited(text: &str, part: Range<usize>, edits: &[Edit]) -> String {
    let mut out = String::new();
    let mut from = part.start;
    for edit in edits.iter().filter(|edit| part.start <= edit.place.start && edit.place.end <= part.end) {
        out.push_str(&text[from..edit.place.start]);
        // What is taken away takes no space with it that kept two words apart.
        out.push_str(if edit.to.is_empty() { " " } else { &edit.to });
        from = edit.place.end;
    }
    out.push_str(&text[from..part.end]);
    let tidy = out.split_whitespace().collect::<Vec<_>>().join(" ");
    if edits.is_empty() { out.trim().to_string() } else { tidy }
}

/// Words that an edit touches become those that stand in their place, which share their time by their length.
fn edit_words(text: &str, words: Vec<HeardWord>, edits: &[Edit]) -> Vec<HeardWord> {
    let mut placed = Vec::with_capacity(words.len());
    let mut from = 0;
    for word in words {
        // Words are the text, in order; one that is not there has no place to be edited at.
        let Some(start) = text[from..].find(&word.text).map(|at| from + at) else { continue };
        from = start + word.text.len();
        placed.push((start..from, word));
    }
    let mut out: Vec<HeardWord> = Vec::with_capacity(placed.len());
    let mut placed = placed.into_iter().peekable();
    while let Some((mut place, mut word)) = placed.next() {
        let touches = |place: &Range<usize>, edit: &Edit| edit.place.start < place.end && place.start < edit.place.end;
        if !edits.iter().any(|edit| touches(&place, edit)) {
            out.push(word);
            continue;
        }
        let mut count = 1.0;
        while let Some((next, other)) =
            placed.next_if(|(next, _)| edits.iter().any(|edit| touches(&place, edit) && touches(next, edit)))
        {
            place.end = next.end;
            word.end = other.end;
            word.probability += other.probability;
            count += 1.0;
        }
        word.probability /= count;
        let shown = edited(text, place, edits);
        let chars = shown.chars().filter(|c| !c.is_whitespace()).count() as u64;
        let (start, length) = (word.start, u64::from(word.end - word.start));
        let mut before = 0;
        for text in shown.split_whitespace() {
            let after = before + text.chars().count() as u64;
            let at = |chars_before: u64| start + (length * chars_before / chars.max(1)) as u32;
            out.push(HeardWord { text: text.to_string(), start: at(before), end: at(after), ..word });
            before = after;
        }
    }
    out
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::config::{Replacement, Replacements, Words};

    fn rules(table: &[(&str, &str)], masked: &[&str]) -> TextRules {
        let rows = table.iter().map(|(from, to)| Replacement { from: from.to_string(), to: to.to_string() });
        let masked = masked.iter().map(ToString::to_string).collect::<Vec<_>>();
        TextRules {
            replacements: Replacements::try_from(rows.collect::<Vec<_>>()).unwrap(),
            masked_words: Words::try_from(masked).unwrap(),
            ..TextRules::default()
        }
    }

    #[test]
    fn terms_are_whole_words_in_any_case_and_the_longest_wins() {
        let table = [("cue wire", "cuewire"), ("wire", "cable"), ("Straße", "Str."), ("um", ""), ("東京", "Tokyo")];
        let rules = Rules::new(&rules(&table, &["blast", "rats"]));
        for (text, shown) in [
            ("Cue  Wire, it is.", "cuewire, it is."),
            ("A wire, wired. Wire's", "A cable, wired. Wire's"),
            ("Um, die STRASSE, die Straße", "die STRASSE, die Str."),
            ("well um yes", "well yes"),
            ("Blast! RATS rat-rats ratsy", "B****! R*** rat-r*** ratsy"),
            ("これは東京タワー", "これはTokyoタワー"),
            ("[Music] Hello (applause) *sighs* ♪ world", "Hello world"),
            ("[the wire] wire (open", "cable (open"),
            ("nothing  to do", "nothing  to do"),
        ] {
            assert_eq!(rules.apply(text, Vec::new()).0, shown, "{text}");
        }
        assert_eq!(rules.undecided_words(), 1);
    }

    #[test]
    fn profanity_and_sound_tags_are_settings() {
        let mut settings = TextRules::default();
        assert_eq!(Rules::new(&settings).apply("[Music] Shit.", Vec::new()).0, "Shit.");
        (settings.mask_profanity, settings.keep_sound_tags) = (true, true);
        assert_eq!(Rules::new(&settings).apply("[Music] Shit. Shiitake.", Vec::new()).0, "[Music] S***. Shiitake.");
    }

    #[test]
    fn words_follow_the_text() {
        let heard = |texts: &[&str]| -> Vec<HeardWord> {
            let word = |(text, i): (&&str, u32)| HeardWord {
                text: text.to_string(),
                start: i * 100,
                end: i * 100 + 100,
                probability: 0.5,
            };
            texts.iter().zip(0..).map(word).collect()
        };
        let rules = Rules::new(&rules(&[("new york", "The Big Apple"), ("so", "")], &["damn"]));
        let text = "So [noise] in New York, damn cold.";
        let (shown, words) = rules.apply(text, heard(&["So", "[noise]", "in", "New", "York,", "damn", "cold."]));
        assert_eq!(shown, "in The Big Apple, d*** cold.");
        let found: Vec<(&str, u32, u32)> = words.iter().map(|w| (w.text.as_str(), w.start, w.end)).collect();
        assert_eq!(
            found,
            [
                ("in", 200, 300),
                ("The", 300, 350),
                ("Big", 350, 400),
                ("Apple,", 400, 500),
                ("d***", 500, 600),
                ("cold.", 600, 700)
            ]
        );
        assert_eq!(words.iter().map(|w| w.text.as_str()).collect::<Vec<_>>().join(" "), shown);
    }
}
