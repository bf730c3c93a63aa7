//! The best cues for a caption's atoms, and the best lines for a cue.
//!
//! In: [`Atom`]s and [`ProfileRules`]. Out: ranges of atoms. Both are shortest paths over the places where a break may be, in
//! integers: the same caption always gives the same cues.

use std::ops::Range;

use super::atoms::Atom;
use super::phrases::Break;
use super::profile::{ProfileRules, sending_ms};
use super::timing::{Ending, end_of_cue};

/// What a cue costs beside its break, in squared characters: three times a break of a line in the midst of a phrase.
const CUE: u64 = 600;
/// What a millisecond costs by which a cue is too short to be read: half a second is a cue that ends in the midst of a
/// phrase.
const MISSING_MS: u64 = 2;
/// A cue that is shorter flashes, whatever its profile allows, ms: what is missing costs [`MISSING_MS`].
const FLASH_MS: u64 = 1000;
/// What it costs to show the end of one sentence with the beginning of the next and not its end.
const TWO_SENTENCES: u64 = 600;

/// Sums over the first atoms, so that any range is known at once.
#[derive(Clone, Copy, Default)]
struct Sums {
    columns: u64,
    sixths: u64,
    sent_bytes: u64,
    sentences: u64,
}

pub(super) struct Layout<'a> {
    atoms: &'a [Atom<'a>],
    sums: Vec<Sums>,
    rules: ProfileRules,
}

/// What lines cost: compared in this order.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
struct LineCost {
    /// Lines, and twice the breaks that should never be.
    lines_and_never: usize,
    /// Squares of the lengths, least where they are equal, and breaks.
    raggedness: u64,
    lines: usize,
    squares: u64,
    breaks: u64,
}

/// What cues cost: compared in this order, which is that of the rules.
#[derive(Clone, Copy, Default, PartialEq, Eq, PartialOrd, Ord)]
struct CueCost {
    late_ms: u64,
    /// Durations and gaps that are wrong.
    wrong: u64,
    /// Too little time to read, phrases that are broken, lines of different lengths.
    quality: u64,
}

impl CueCost {
    fn plus(self, other: Self) -> Self {
        Self {
            late_ms: self.late_ms.saturating_add(other.late_ms),
            wrong: self.wrong.saturating_add(other.wrong),
            quality: self.quality.saturating_add(other.quality),
        }
    }
}

impl<'a> Layout<'a> {
    pub(super) fn new(atoms: &'a [Atom<'a>], rules: ProfileRules) -> Self {
        let mut sum = Sums::default();
        let mut sums = vec![sum];
        for atom in atoms {
            sum.columns += atom.columns + u64::from(atom.spaced);
            sum.sixths += atom.sixths;
            sum.sent_bytes += atom.sent_bytes + u64::from(atom.spaced);
            sum.sentences += u64::from(atom.break_after == Break::Sentence);
            sums.push(sum);
        }
        Self { atoms, sums, rules }
    }

    /// Characters of atoms, the spaces between them included.
    pub(super) fn columns(&self, range: &Range<usize>) -> u64 {
        let leading = self.atoms.get(range.start).is_some_and(|atom| atom.spaced);
        self.sums[range.end].columns - self.sums[range.start].columns - u64::from(leading && !range.is_empty())
    }

    /// Milliseconds that a reader needs for atoms.
    pub(super) fn reading_ms(&self, range: &Range<usize>) -> u64 {
        let sixths = self.sums[range.end].sixths - self.sums[range.start].sixths;
        self.rules.reading.ms(self.columns(range), sixths)
    }

    /// The text of atoms.
    pub(super) fn text(&self, range: Range<usize>) -> String {
        let mut text = String::new();
        for (index, atom) in self.atoms[range].iter().enumerate() {
            if atom.spaced && index > 0 {
                text.push(' ');
            }
            text.push_str(atom.text);
        }
        text
    }

    /// The cues, in order; `after` is when the last cue before them began and ended, `next_ms` when the first word
    /// behind them begins.
    pub(super) fn cues(&self, after: Option<(u64, u64)>, next_ms: Option<u64>) -> Vec<Range<usize>> {
        let count = self.atoms.len();
        if self.rules.lines == usize::MAX {
            return std::iter::once(0..count).collect();
        }
        // best[n]: the cost of the first n atoms in whole cues, where the last of these cues begins, and when.
        let mut best: Vec<Option<(CueCost, usize, u64)>> = vec![None; count + 1];
        for begin in 0..count {
            let (before, last_start) = match best[begin] {
                _ if begin == 0 => (CueCost::default(), after.map(|(start, _)| start)),
                Some((cost, _, start)) => (cost, Some(start)),
                None => continue,
            };
            let soonest = if begin == 0 { after.map_or(0, |(_, end)| end) } else { last_start.map_or(0, |ms| ms + 1) };
            for (end, lines) in self.lines_from(begin) {
                let (cost, start) = self.cue_cost(begin..end, &lines, last_start, soonest, next_ms);
                let cost = before.plus(cost);
                if best[end].is_none_or(|(least, ..)| cost < least) {
                    best[end] = Some((cost, begin, start));
                }
            }
        }
        let mut cues = Vec::new();
        let mut end = count;
        while end > 0 {
            // Every atom can be a cue of its own, so every place is reached.
            let begin = best[end].map_or(end - 1, |(_, begin, _)| begin);
            cues.push(begin..end);
            end = begin;
        }
        cues.reverse();
        cues
    }

    /// What a cue costs, and when it begins.
    fn cue_cost(
        &self,
        range: Range<usize>,
        lines: &LineCost,
        last_start: Option<u64>,
        soonest: u64,
        next_ms: Option<u64>,
    ) -> (CueCost, u64) {
        let (first, last) = (&self.atoms[range.start], &self.atoms[range.end - 1]);
        let mut start = first.start_ms.max(soonest);
        if self.rules.paced {
            let bytes = self.sums[range.end].sent_bytes - self.sums[range.start].sent_bytes;
            // What each row may be filled up by is not known before its lines are: a byte.
            let fixed_ms = sending_ms(std::iter::repeat_n("", lines.lines));
            // The first one is sent from the beginning of the recording on.
            start = start.max(last_start.unwrap_or(0) + fixed_ms + ((bytes + lines.lines as u64) * 1001).div_ceil(60));
        }
        let next = self.atoms.get(range.end).map(|atom| atom.start_ms);
        let reading_ms = self.reading_ms(&range);
        let ending = Ending { start_ms: start, speech_end_ms: last.end_ms, reading_ms, next_ms: next.or(next_ms) };
        let end = end_of_cue(&self.rules, &ending);
        let missing_ms = end.missing_ms.max(FLASH_MS.saturating_sub(end.end_ms - start));
        let columns = self.columns(&range);
        // 0 where the lines are equally long.
        let imbalance = lines.squares.saturating_sub(columns.saturating_mul(columns) / lines.lines.max(1) as u64);
        let mut quality = CUE
            .saturating_add(imbalance)
            .saturating_add(lines.breaks)
            .saturating_add(columns.saturating_mul(columns) / 8)
            .saturating_add(missing_ms.saturating_mul(MISSING_MS));
        if let Some(next) = self.atoms.get(range.end) {
            // A pause in the speech is a good place.
            let pause_ms = next.start_ms.saturating_sub(last.end_ms);
            quality = quality.saturating_add(last.break_after.of_cue().saturating_sub(pause_ms));
            let sentences = self.sums[range.end - 1].sentences - self.sums[range.start].sentences;
            if sentences > 0 && last.break_after != Break::Sentence {
                quality = quality.saturating_add(TWO_SENTENCES);
            }
        }
        (CueCost { late_ms: start - first.start_ms + first.lost_ms, wrong: end.wrong, quality }, start)
    }

    /// For each end that a cue from `begin` may have, what its best lines cost.
    fn lines_from(&self, begin: usize) -> Vec<(usize, LineCost)> {
        let lines = self.lines_to(begin, self.atoms.len());
        let fits = |lines: &LineCost| lines.lines <= self.rules.lines;
        lines
            .into_iter()
            .enumerate()
            .map(|(index, (cost, _))| (begin + index + 1, cost))
            .filter(|(_, c)| fits(c))
            .collect()
    }

    /// The best lines of a cue.
    pub(super) fn lines(&self, range: Range<usize>) -> Vec<Range<usize>> {
        let best = self.lines_to(range.start, range.end);
        let mut lines = Vec::new();
        let mut end = range.end;
        while end > range.start {
            let begin = best.get(end - range.start - 1).map_or(range.start, |(_, begin)| *begin);
            lines.push(begin..end);
            end = begin;
        }
        lines.reverse();
        lines
    }

    /// For the atoms from `begin` to each end up to `limit`, as far as a cue may hold them: the cost of their best
    /// lines, and where the last of these begins. The first end is always there.
    fn lines_to(&self, begin: usize, limit: usize) -> Vec<(LineCost, usize)> {
        let width = self.rules.line_chars as u64;
        let room = (self.rules.lines as u64).saturating_mul(width + 1);
        let mut best: Vec<(LineCost, usize)> = Vec::new();
        for end in begin + 1..=limit {
            if end > begin + 1 && self.columns(&(begin..end)) > room {
                break;
            }
            let mut least: Option<(LineCost, usize)> = None;
            for from in (begin..end).rev() {
                let columns = self.columns(&(from..end));
                if columns > width && from + 1 < end {
                    break;
                }
                let square = columns.saturating_mul(columns);
                let cost = if from == begin {
                    LineCost { lines_and_never: 1, raggedness: square, lines: 1, squares: square, breaks: 0 }
                } else {
                    let (before, _) = best[from - begin - 1];
                    let place = self.atoms[from - 1].break_after;
                    let never = 2 * usize::from(place == Break::Never);
                    LineCost {
                        lines_and_never: before.lines_and_never + 1 + never,
                        raggedness: before.raggedness.saturating_add(square).saturating_add(place.in_cue()),
                        lines: before.lines + 1,
                        squares: before.squares.saturating_add(square),
                        breaks: before.breaks.saturating_add(place.in_cue()),
                    }
                };
                if least.is_none_or(|(least, _)| cost < least) {
                    least = Some((cost, from));
                }
            }
            best.extend(least);
        }
        best
    }
}
