//! Where in the audio each word is.
//!
//! In: for each token of a text, where the alignment heads looked when it was found. Out: the words and their places.
//!
//! Source: openai/whisper, `timing.py`: distributions are normalised over the tokens, smoothed along time by a median of
//! seven, averaged over the heads, and a monotone path of least cost (dynamic time warping) says when one token ends and
//! the next begins. There the distributions cover the window; here the positions of the caption.

use std::ops::Range;

use icu_segmenter::WordSegmenter;
use icu_segmenter::options::WordBreakInvariantOptions;

use super::mel::HOP;
use super::tokenizer::Tokens;
use crate::asr::HeardWord;
use crate::script::is_unspaced;

/// Positions over which the median is taken.
const MEDIAN: usize = 7;
/// Soft frames in a row that make a pause: 100 ms, longer than the closure of a stop.
const PAUSE: usize = 10;
/// Of the way from the softest tenth of the frames to the loudest, how far a pause may reach.
const SOFT: f32 = 0.3;
/// Frames that are left of a word, however soft it is: 60 ms.
const SHORTEST: usize = 6;

/// The attention of a text's tokens, gathered while it is decoded.
#[derive(Default)]
pub(crate) struct Alignment {
    /// `[tokens and the end, heads, positions]`
    weights: Vec<f32>,
    rows: usize,
    heads: usize,
    positions: usize,
}

impl Alignment {
    /// Forgets what was gathered; `positions` are those of the caption's audio.
    pub(crate) fn clear(&mut self, heads: usize, positions: usize) {
        self.weights.clear();
        (self.rows, self.heads, self.positions) = (0, heads, positions);
    }

    /// Files where the heads looked when one token was found: `[heads, encoded]`, of which the caption's positions are the
    /// first; what they took of the silence behind is left out.
    pub(crate) fn push(&mut self, looked: &[f32], encoded: usize) {
        for head in looked.chunks_exact(encoded.max(1)) {
            let heard = &head[..self.positions];
            let total = heard.iter().sum::<f32>().max(f32::MIN_POSITIVE);
            self.weights.extend(heard.iter().map(|weight| weight / total));
        }
        self.rows += 1;
    }

    /// Position at which each row begins; one row for each token, and one for the end.
    fn starts(&self) -> Option<Vec<usize>> {
        let Self { rows, heads, positions, .. } = *self;
        if rows < 2 || heads == 0 || positions == 0 {
            return None;
        }
        let mut mean = vec![0.0f32; rows * positions];
        let mut column = vec![0.0f32; positions];
        let mut scratch = [0.0f32; MEDIAN];
        for head in 0..heads {
            let row = |row: usize| &self.weights[(row * heads + head) * positions..][..positions];
            // Over the tokens, at each position.
            let (mut means, mut squares) = (vec![0.0f64; positions], vec![0.0f64; positions]);
            for r in 0..rows {
                for ((mean, square), &w) in means.iter_mut().zip(&mut squares).zip(row(r)) {
                    *mean += f64::from(w) / rows as f64;
                    *square += f64::from(w).powi(2) / rows as f64;
                }
            }
            for r in 0..rows {
                for (p, (to, &w)) in column.iter_mut().zip(row(r)).enumerate() {
                    let deviation = (squares[p] - means[p].powi(2)).max(0.0).sqrt();
                    *to = if deviation > 1e-12 { ((f64::from(w) - means[p]) / deviation) as f32 } else { 0.0 };
                }
                for p in 0..positions {
                    for (i, v) in scratch.iter_mut().enumerate() {
                        *v = column[reflected(p + i, positions)];
                    }
                    scratch.sort_unstable_by(f32::total_cmp);
                    mean[r * positions + p] += scratch[MEDIAN / 2] / heads as f32;
                }
            }
        }
        Some(path(&mean, rows, positions))
    }

    /// The words of `tokens`, whose probabilities are given too. None where nobody knows where they are.
    /// `loudness` is that of each frame.
    pub(crate) fn words(
        &self,
        tokens: &Tokens,
        text: &[u32],
        probabilities: &[f32],
        loudness: &[f32],
    ) -> Vec<HeardWord> {
        let Some(mut starts) = self.starts().filter(|starts| starts.len() >= text.len()) else { return Vec::new() };
        // A text that was cut off has no end of its own.
        starts.push(self.positions);
        let (string, from) = text_of(tokens, text);
        let at = |byte: usize| from.partition_point(|&start| start <= byte) - 1;
        let soft = soft_frames(&loudness[..loudness.len().min(2 * self.positions)]);
        let sample = |frame: usize| u32::try_from(frame * HOP).unwrap_or(u32::MAX);
        let mut words: Vec<HeardWord> = Vec::new();
        for range in word_ranges(&string) {
            let word = &string[range.clone()];
            // Punctuation behind a word is heard as the pause.
            let spoken = word.trim_end_matches(|c: char| !c.is_alphanumeric()).len();
            let (first, last) = (at(range.start), at(range.start + spoken.max(1) - 1));
            let probabilities = &probabilities[first..=last];
            let place = without_pauses(2 * starts[first]..2 * starts[last + 1], &soft);
            let start = place.start.max(place.end.saturating_sub(longest(word)));
            words.push(HeardWord {
                text: word.to_string(),
                start: sample(start),
                end: sample(place.end),
                probability: probabilities.iter().sum::<f32>() / probabilities.len() as f32,
            });
        }
        words
    }
}

/// Frames (10 ms) that a word lasts at most: 200 ms and 100 ms a letter, which is slow speech; a character that is a
/// syllable, or a digit, takes four times as long as a letter. Attention to a short word often begins in the one before.
fn longest(word: &str) -> usize {
    let letters = word.chars().filter(|c| c.is_alphanumeric());
    20 + letters.map(|c| if is_unspaced(c) || c.is_numeric() { 40 } else { 10 }).sum::<usize>()
}

/// Which frames lie in pauses: at least [`PAUSE`] frames in a row that are hardly louder than the softest ones.
fn soft_frames(loudness: &[f32]) -> Vec<bool> {
    let mut sorted = loudness.to_vec();
    sorted.sort_unstable_by(f32::total_cmp);
    let at = |tenths: usize| sorted.get(sorted.len() * tenths / 10).copied().unwrap_or_default();
    let threshold = at(1) + (at(9) - at(1)) * SOFT;
    let mut soft: Vec<bool> = loudness.iter().map(|v| *v < threshold).collect();
    for run in soft.chunk_by_mut(|a, b| a == b) {
        if run.len() < PAUSE {
            run.fill(false);
        }
    }
    soft
}

/// A word's frames without the soft ones at its ends: attention shares out all of the time, pauses too.
fn without_pauses(frames: Range<usize>, soft: &[bool]) -> Range<usize> {
    let is_loud = |frame: &usize| soft.get(*frame).is_some_and(|soft| !*soft);
    // A word that is soft throughout stays where it is.
    let (Some(first), Some(last)) = (frames.clone().find(is_loud), frames.clone().rfind(is_loud)) else {
        return frames;
    };
    let start = first.min(frames.end.saturating_sub(SHORTEST)).max(frames.start);
    start..(last + 1).max(start + SHORTEST).min(frames.end)
}

/// Index `at − MEDIAN / 2`, reflected at both ends.
fn reflected(at: usize, length: usize) -> usize {
    let at = at.abs_diff(MEDIAN / 2);
    if at < length { at } else { (2 * length).saturating_sub(at + 2).min(length - 1) }
}

/// Dynamic time warping: the position at which each row begins on the monotone path of the greatest sum.
fn path(scores: &[f32], rows: usize, positions: usize) -> Vec<usize> {
    /// Where a path came from.
    #[derive(Clone, Copy)]
    enum From {
        Both,
        Row,
        Position,
    }
    let stride = positions + 1;
    let mut cost = vec![f32::INFINITY; (rows + 1) * stride];
    let mut from = vec![From::Both; (rows + 1) * stride];
    cost[0] = 0.0;
    for r in 1..=rows {
        for p in 1..=positions {
            let (both, row, position) =
                (cost[(r - 1) * stride + p - 1], cost[(r - 1) * stride + p], cost[r * stride + p - 1]);
            let (least, way) = if both < row && both < position {
                (both, From::Both)
            } else if row < both && row < position {
                (row, From::Row)
            } else {
                (position, From::Position)
            };
            cost[r * stride + p] = least - scores[(r - 1) * positions + p - 1];
            from[r * stride + p] = way;
        }
    }
    let mut starts = vec![0; rows];
    let (mut r, mut p) = (rows, positions);
    while r > 0 && p > 0 {
        starts[r - 1] = p - 1;
        match from[r * stride + p] {
            From::Both => (r, p) = (r - 1, p - 1),
            From::Row => r -= 1,
            From::Position => p -= 1,
        }
    }
    starts
}

/// The text of tokens, and the byte at which each of them begins in it. Bytes that are no text count with the character
/// that stands for them.
fn text_of(tokens: &Tokens, ids: &[u32]) -> (String, Vec<usize>) {
    let mut bytes = Vec::new();
    let mut begin = Vec::with_capacity(ids.len());
    for &id in ids {
        begin.push(bytes.len());
        bytes.extend(tokens.bytes(id));
    }
    let (mut string, mut read, mut next) = (String::with_capacity(bytes.len()), 0, 0);
    let mut from = vec![0; ids.len()];
    for chunk in bytes.utf8_chunks() {
        for (part, replaced) in [(chunk.valid().len(), false), (chunk.invalid().len(), true)] {
            while next < begin.len() && begin[next] < read + part {
                from[next] = string.len() + if replaced { 0 } else { begin[next] - read };
                next += 1;
            }
            if !replaced {
                string.push_str(chunk.valid());
            } else if part > 0 {
                string.push(char::REPLACEMENT_CHARACTER);
            }
            read += part;
        }
    }
    from[next..].fill(string.len());
    (string, from)
}

/// The words of a text: what stands between spaces; where a script has none, those of a dictionary (Chinese, Japanese) or
/// of ICU's models (Thai, Khmer, Lao, Burmese), each with the punctuation behind it.
fn word_ranges(text: &str) -> Vec<Range<usize>> {
    let mut ranges: Vec<Range<usize>> = Vec::new();
    let begins = text.as_ptr().addr();
    for chunk in text.split_whitespace() {
        let start = chunk.as_ptr().addr() - begins;
        let mut spaced = true;
        let mut spoke = false;
        if !chunk.chars().any(is_unspaced) {
            ranges.push(start..start + chunk.len());
            continue;
        }
        let breaks: Vec<usize> =
            WordSegmenter::new_auto(WordBreakInvariantOptions::default()).segment_str(chunk).collect();
        for word in breaks.windows(2) {
            let (at, range) = (word[0], start + word[0]..start + word[1]);
            let word = &text[range.clone()];
            let unspaced = word.chars().any(is_unspaced);
            let speaks = word.chars().any(char::is_alphanumeric);
            match ranges.last_mut().filter(|_| at > 0) {
                // Within a script that has spaces the word goes on, and punctuation belongs to it.
                Some(last) if (spaced && !unspaced) || !speaks || !spoke => last.end = range.end,
                _ => ranges.push(range),
            }
            spaced = !unspaced;
            spoke = speaks || (at > 0 && spoke);
        }
    }
    ranges
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn words_are_what_the_language_takes_for_words() {
        for (text, words) in [
            ("That agent's here, (now) - go!", &["That", "agent's", "here,", "(now)", "-", "go!"][..]),
            ("東京へ行きます。", &["東京", "へ", "行き", "ます。"]),
            ("「はい」 OK です", &["「はい」", "OK", "です"]),
            ("今天我们去北京大学。", &["今天", "我们", "去", "北京", "大学。"]),
            ("ขออภัยขณะนี้", &["ขอ", "อภัย", "ขณะ", "นี้"]),
            ("안녕하세요 세계!", &["안녕하세요", "세계!"]),
            ("  ", &[]),
        ] {
            let found: Vec<&str> = word_ranges(text).into_iter().map(|range| &text[range]).collect();
            assert_eq!(found, words);
        }
    }

    #[test]
    fn the_path_follows_the_ridge() {
        // Rows look at 0–2, 3–4 and 5–9.
        let looks = [0..3, 3..5, 5..10];
        let scores: Vec<f32> =
            looks.iter().flat_map(|look| (0..10).map(|p| if look.contains(&p) { 1.0 } else { -0.5 })).collect();
        assert_eq!(path(&scores, 3, 10), [0, 3, 5]);
    }

    #[test]
    fn a_median_sees_the_ends_reflected() {
        let seen: Vec<usize> = (0..7).map(|i| reflected(i, 10)).collect();
        assert_eq!(seen, [3, 2, 1, 0, 1, 2, 3]);
        let seen: Vec<usize> = (9..16).map(|i| reflected(i, 10)).collect();
        assert_eq!(seen, [6, 7, 8, 9, 8, 7, 6]);
        assert!((0..20).all(|i| reflected(i, 1) == 0 && reflected(i, 2) < 2));
    }
}
