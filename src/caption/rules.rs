//! What is changed in a recognised text before it is shown.
//!
//! In: the text of a hypothesis, its words perhaps. Out: the same without names of sounds, terms replaced, swear words
//! masked. Finals and interims pass through alike.

use std::collections::HashMap;
use std::ops::Range;

use crate::asr::HeardWord;
use crate::config::TextRules;
use crate::script::is_unspaced;
use crate::sounds::{open_tag, sound_tags};

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

    /// The text as it is shown, and its words. The words that are there are the text, as far as it went in.
    pub(crate) fn apply(&self, text: &str, words: Vec<HeardWord>) -> (String, Vec<HeardWord>) {
        let tags = if self.keep_sound_tags { Vec::new() } else { sound_tags(text) };
        let mut edits: Vec<Edit> = tags.into_iter().map(|place| Edit { place, to: String::new() }).collect();
        if !self.terms.is_empty() {
            self.find_terms(text, &mut edits);
            edits.sort_by_key(|edit| edit.place.start);
        }
        if edits.is_empty() {
            return (text.to_string(), words);
        }
        let shown = edited(text, &edits);
        // What is left of a sentence that was taken away.
        if !shown.iter().any(|(c, _)| c.is_alphanumeric()) {
            return (String::new(), Vec::new());
        }
        (shown.iter().map(|(c, _)| c).collect(), words_of(&shown, text, words))
    }

    /// How much of an unfinished text, from its beginning, is not the beginning of a sound's name.
    pub(crate) fn without_open_tag<'a>(&self, text: &'a str) -> &'a str {
        let end = open_tag(text).filter(|_| !self.keep_sound_tags);
        end.map_or(text, |end| text[..end].trim_end())
    }

    /// Adds terms, found from the left, where no edit is yet.
    fn find_terms(&self, text: &str, edits: &mut Vec<Edit>) {
        let tags: Vec<Range<usize>> = edits.iter().map(|edit| edit.place.clone()).collect();
        let chars: Vec<(usize, char)> = text.char_indices().collect();
        let mut at = 0;
        while at < chars.len() {
            let begins = at == 0 || is_boundary(&chars, at);
            let terms = self.terms.get(&fold(chars[at].1)).filter(|_| begins);
            let found = terms.into_iter().flatten().find_map(|term| Some((term, matched(&chars, at, &term.chars)?)));
            let Some((term, mut end)) = found else {
                at += 1;
                continue;
            };
            // A comma goes with the word that it set apart.
            let is_comma = chars.get(end).is_some_and(|(_, c)| matches!(c, ',' | '、'));
            end += usize::from(is_comma && term.to.as_deref() == Some(""));
            let place = chars[at].0..chars.get(end).map_or(text.len(), |&(end, _)| end);
            if tags.iter().all(|tag| tag.end <= place.start || place.end <= tag.start) {
                let to = term.to.clone().unwrap_or_else(|| mask(&text[place.clone()]));
                edits.push(Edit { place, to });
            }
            at = end;
        }
    }
}

/// One character for one: enough to compare words.
fn fold(c: char) -> char {
    c.to_lowercase().next().unwrap_or(c)
}

/// Behind which character the term ends that begins with the `from`th, where a word ends there too.
fn matched(text: &[(usize, char)], from: usize, term: &[char]) -> Option<usize> {
    let mut at = from;
    for &wanted in term {
        let (_, c) = *text.get(at)?;
        if wanted == ' ' {
            let spaces = text[at..].iter().take_while(|(_, c)| c.is_whitespace()).count();
            at += (spaces > 0).then_some(spaces)?;
        } else {
            at += (fold(c) == wanted).then_some(1)?;
        }
    }
    (at == text.len() || is_boundary(text, at)).then_some(at)
}

fn is_apostrophe(c: char) -> bool {
    matches!(c, '\'' | '’')
}

/// Letters before an apostrophe that belong to no word but the one behind it: the French d', l', qu'; the Italian dell'.
const ELISION: usize = 4;
/// What an apostrophe joins to an English word that is none of its own: "wire's", "they'll"; not the t of "can't".
const ENDINGS: [&str; 6] = ["s", "ll", "re", "ve", "d", "m"];

/// Whether a word may end before the `at`th character. Scripts without spaces end words anywhere.
fn is_boundary(text: &[(usize, char)], at: usize) -> bool {
    let char_at = |at: usize| text.get(at).map(|&(_, c)| c);
    let is_letter = |c: Option<char>| c.is_some_and(|c| c.is_alphanumeric() && !is_unspaced(c));
    let run = |from: usize| -> String {
        text[from.min(text.len())..].iter().map(|&(_, c)| fold(c)).take_while(|c| c.is_alphabetic()).collect()
    };
    let (before, after) = (at.checked_sub(1).and_then(char_at), char_at(at));
    if is_letter(before) && after.is_some_and(is_apostrophe) {
        // The end of a quotation, or an ending.
        let run = run(at + 1);
        return run.is_empty() || ENDINGS.contains(&run.as_str());
    }
    if before.is_some_and(is_apostrophe) && is_letter(after) {
        let elided = text[..at - 1].iter().rev().take_while(|(_, c)| c.is_alphabetic()).count();
        return elided == 0 || elided <= ELISION && run(at).chars().count() > 2;
    }
    !(is_letter(before) && is_letter(after))
}

/// Its first character, and a star for each other one.
fn mask(word: &str) -> String {
    let mut chars = word.chars();
    chars.next().into_iter().chain(chars.map(|c| if c.is_alphanumeric() { '*' } else { c })).collect()
}

/// Ends a clause, or a sentence.
fn is_closing(c: char) -> bool {
    matches!(c, '.' | ',' | '!' | '?' | ';' | ':' | '…' | '。' | '、' | '，' | '！' | '？')
}

/// A character that is shown, and the bytes of the text that it stands for.
type Shown = (char, Range<usize>);

/// The text with its edits made, white space in single spaces. What is taken away leaves no space before a comma, and
/// where a sentence begins no comma either.
fn edited(text: &str, edits: &[Edit]) -> Vec<Shown> {
    let mut out: Vec<Shown> = Vec::with_capacity(text.len());
    let keep = |out: &mut Vec<Shown>, part: Range<usize>| {
        let chars = text[part.clone()].char_indices();
        out.extend(chars.map(|(at, c)| (c, part.start + at..part.start + at + c.len_utf8())));
    };
    let mut from = 0;
    for (i, Edit { place, to }) in edits.iter().enumerate() {
        keep(&mut out, from..place.start);
        from = place.end;
        // Its characters share the place.
        let count = to.chars().count();
        let at = |n: usize| place.start + place.len() * n / count.max(1);
        out.extend(to.chars().enumerate().map(|(n, c)| (c, at(n)..at(n + 1))));
        if to.is_empty() {
            while out.pop_if(|(c, _)| c.is_whitespace()).is_some() {}
            let next = edits.get(i + 1).map_or(text.len(), |next| next.place.start);
            if out.last().is_none_or(|&(c, _)| is_closing(c)) {
                from = next - text[from..next].trim_start_matches(is_closing).len();
            }
            // No two words are joined by it.
            if !text[from..].starts_with(is_closing) {
                out.push((' ', from..from));
            }
        }
    }
    keep(&mut out, from..text.len());
    let words = out.split(|(c, _)| c.is_whitespace()).filter(|word| !word.is_empty());
    words.collect::<Vec<_>>().join(&(' ', 0..0))
}

/// The words of what is shown: they take their times from the words that were heard in their places.
fn words_of(shown: &[Shown], text: &str, heard: Vec<HeardWord>) -> Vec<HeardWord> {
    let mut placed = Vec::with_capacity(heard.len());
    let mut from = 0;
    for word in heard {
        // Words are the text, in order.
        let Some(start) = text[from..].find(&word.text).map(|at| from + at) else { continue };
        from = start + word.text.len();
        placed.push((start..from, word));
    }
    if placed.is_empty() {
        return Vec::new();
    }
    let time = |(place, word): &(Range<usize>, HeardWord), at: usize| {
        let (lasts, part) = (u64::from(word.end.saturating_sub(word.start)), at.saturating_sub(place.start) as u64);
        word.start + (lasts * part.min(place.len() as u64) / place.len().max(1) as u64) as u32
    };
    let words = shown.split(|(c, _)| *c == ' ').filter(|word| !word.is_empty());
    let shown_word = |word: &[Shown]| {
        let (from, to) = (word.first().map_or(0, |(_, at)| at.start), word.last().map_or(0, |(_, at)| at.end));
        // The heard words that it touches; where it touches none, the one behind.
        let first = placed.iter().position(|(place, _)| place.end > from).unwrap_or(placed.len() - 1);
        let last = placed.iter().rposition(|(place, _)| place.start < to).unwrap_or(0).max(first);
        let touched = &placed[first..=last];
        HeardWord {
            text: word.iter().map(|(c, _)| c).collect(),
            start: time(&placed[first], from),
            end: time(&placed[last], to),
            probability: touched.iter().map(|(_, word)| word.probability).sum::<f32>() / touched.len() as f32,
        }
    };
    words.map(shown_word).collect()
}

#[cfg(test)]
mod tests {
    use proptest::collection;
    use proptest::prelude::*;

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
            ("A wire, wired. Wire's", "A cable, wired. cable's"),
            ("'wire' d'wire wire't", "'cable' d'cable wire't"),
            ("Blast's 'rats' l’rats", "B****'s 'r***' l’r***"),
            ("So um. Um.", "So."),
            ("Um, die STRASSE, die Straße", "die STRASSE, die Str."),
            ("well um yes", "well yes"),
            ("Blast! RATS rat-rats ratsy", "B****! R*** rat-r*** ratsy"),
            ("これは東京タワー", "これはTokyoタワー"),
            ("[Music] Hello (applause) *sighs* ♪ world", "Hello world"),
            ("[the wire] wire (open", "cable (open"),
            ("nothing  to do", "nothing  to do"),
            ("Um.", ""),
            ("Hello (um [x] y) there", "Hello there"),
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

    proptest! {
        #[test]
        fn any_table_leaves_words_that_are_the_text(
            table in collection::vec(("[ab' ,.\\[東]{1,4}", "[xy ,.]{0,3}"), 1..5),
            text in "[ab' ,.\\[\\](*東]{0,30}",
        ) {
            let rows: Vec<(&str, &str)> = table.iter().map(|(from, to)| (from.as_str(), to.as_str())).collect();
            let rows = rows.into_iter().filter(|(from, _)| from.chars().any(char::is_alphanumeric)).collect::<Vec<_>>();
            let rules = Rules::new(&rules(&rows, &[]));
            let word = |text: &str| HeardWord { text: text.to_string(), start: 7, end: 3, probability: 0.5 };
            let heard = text.split_whitespace().map(word).collect();
            let (shown, words) = rules.apply(&text, heard);
            let words: Vec<&str> = words.iter().map(|word| word.text.as_str()).collect();
            prop_assert_eq!(words.join(" "), shown.split_whitespace().collect::<Vec<_>>().join(" "));
        }
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
                ("The", 300, 333),
                ("Big", 366, 400),
                ("Apple,", 400, 500),
                ("d***", 500, 600),
                ("cold.", 600, 700)
            ]
        );
        assert_eq!(words.iter().map(|w| w.text.as_str()).collect::<Vec<_>>().join(" "), shown);
    }
}
