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
/// A cue that is shorter flashes, whatever its profile allows, ms.
const FLASH_MS: u64 = 1000;
/// What a millisecond costs that is missing to [`FLASH_MS`]: half a second is a cue that ends in the midst of a phrase.
const MISSING_MS: u64 = 2;
/// So many ways to the same place are followed where a cue's start depends on the one before.
const WAYS: usize = 8;
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

/// What lines cost: compared in this order, among those that are few enough.
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

/// The last of some lines.
#[derive(Clone, Copy)]
struct Line {
    /// Of all of them.
    cost: LineCost,
    begin: usize,
}

/// What cues cost: compared in this order, which is that of the rules.
#[derive(Clone, Copy, Default, PartialEq, Eq, PartialOrd, Ord)]
struct CueCost {
    late_ms: u64,
    /// Durations and gaps that are wrong.
    wrong: u64,
    /// Cues that are too short to be read.
    too_fast: u64,
    /// Milliseconds too few to read.
    missing_ms: u64,
    /// Phrases that are broken, lines of different lengths, cues that flash.
    quality: u64,
}

/// The first atoms in whole cues.
#[derive(Clone, Copy)]
struct Way {
    cost: CueCost,
    /// When the last cue begins.
    start_ms: u64,
    /// Where it begins, and which of the ways to there comes before it.
    begin: usize,
    before: usize,
}

impl CueCost {
    fn plus(self, other: Self) -> Self {
        Self {
            late_ms: self.late_ms.saturating_add(other.late_ms),
            wrong: self.wrong.saturating_add(other.wrong),
            too_fast: self.too_fast.saturating_add(other.too_fast),
            missing_ms: self.missing_ms.saturating_add(other.missing_ms),
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
        // ways[n]: the best ways to show the first n atoms in whole cues, the cheapest first.
        let mut ways: Vec<Vec<Way>> = vec![Vec::new(); count + 1];
        // Before the first cue is the beginning of the recording.
        let (last_start, last_end) = after.unwrap_or_default();
        ways[0] = vec![Way { cost: CueCost::default(), start_ms: last_start, begin: 0, before: 0 }];
        for begin in 0..count {
            let lines_from = self.lines_from(begin);
            for before in 0..ways[begin].len() {
                let way = ways[begin][before];
                let soonest = if begin == 0 { last_end } else { way.start_ms + 1 };
                for (end, lines) in &lines_from {
                    let (cost, start_ms) = self.cue_cost(begin..*end, lines, way.start_ms, soonest, next_ms);
                    self.keep(&mut ways[*end], Way { cost: way.cost.plus(cost), start_ms, begin, before });
                }
            }
        }
        let mut cues = Vec::new();
        let (mut end, mut index) = (count, 0);
        while end > 0 {
            // Every atom can be a cue of its own, so every place is reached.
            let (begin, before) = ways[end].get(index).map_or((end - 1, 0), |way| (way.begin, way.before));
            cues.push(begin..end);
            (end, index) = (begin, before);
        }
        cues.reverse();
        cues
    }

    /// Adds a way to those that lead to the same place, unless one of them is as good: as cheap and, where the next cue
    /// waits for the last one, as early.
    fn keep(&self, ways: &mut Vec<Way>, way: Way) {
        let is_as_good = |a: &Way, b: &Way| a.cost <= b.cost && (!self.rules.paced || a.start_ms <= b.start_ms);
        if ways.iter().any(|other| is_as_good(other, &way)) {
            return;
        }
        ways.retain(|other| !is_as_good(&way, other));
        ways.insert(ways.partition_point(|other| other.cost <= way.cost), way);
        ways.truncate(WAYS);
    }

    /// What a cue costs, and when it begins.
    fn cue_cost(
        &self,
        range: Range<usize>,
        lines: &LineCost,
        last_start: u64,
        soonest: u64,
        next_ms: Option<u64>,
    ) -> (CueCost, u64) {
        let (first, last) = (&self.atoms[range.start], &self.atoms[range.end - 1]);
        let mut start = first.start_ms.max(soonest);
        if self.rules.paced {
            let bytes = self.sums[range.end].sent_bytes - self.sums[range.start].sent_bytes;
            // What each row may be filled up by is not known before its lines are: a byte.
            let fixed_ms = sending_ms(std::iter::repeat_n("", lines.lines));
            start = start.max(last_start + fixed_ms + ((bytes + lines.lines as u64) * 1001).div_ceil(60));
        }
        let next = self.atoms.get(range.end).map(|atom| atom.start_ms);
        let reading_ms = self.reading_ms(&range);
        let ending = Ending { start_ms: start, speech_end_ms: last.end_ms, reading_ms, next_ms: next.or(next_ms) };
        let end = end_of_cue(&self.rules, &ending);
        let lasts = end.end_ms - start;
        let columns = self.columns(&range);
        // 0 where the lines are equally long.
        let imbalance = lines.squares.saturating_sub(columns.saturating_mul(columns) / lines.lines.max(1) as u64);
        let mut quality = CUE
            .saturating_add(imbalance)
            .saturating_add(lines.breaks)
            .saturating_add(columns.saturating_mul(columns) / 8)
            .saturating_add(FLASH_MS.max(self.rules.min_ms).saturating_sub(lasts).saturating_mul(MISSING_MS));
        if let Some(next) = self.atoms.get(range.end) {
            // A pause in the speech is a good place.
            let pause_ms = next.start_ms.saturating_sub(last.end_ms);
            quality = quality.saturating_add(last.break_after.of_cue().saturating_sub(pause_ms));
            let sentences = self.sums[range.end - 1].sentences - self.sums[range.start].sentences;
            if sentences > 0 && last.break_after != Break::Sentence {
                quality = quality.saturating_add(TWO_SENTENCES);
            }
        }
        let late_ms = start - first.start_ms + first.lost_ms;
        let missing_ms = reading_ms.saturating_sub(lasts);
        let too_fast = u64::from(missing_ms > 0);
        (CueCost { late_ms, wrong: end.wrong, too_fast, missing_ms, quality }, start)
    }

    /// For each end that a cue from `begin` may have, what its best lines cost.
    fn lines_from(&self, begin: usize) -> Vec<(usize, LineCost)> {
        let lines = self.lines_to(begin, self.atoms.len());
        let least = |by_count: Vec<Option<Line>>| by_count.into_iter().flatten().map(|line| line.cost).min();
        let ends = lines.into_iter().enumerate();
        ends.filter_map(|(index, by_count)| Some((begin + index + 1, least(by_count)?))).collect()
    }

    /// The best lines of a cue.
    pub(super) fn lines(&self, range: Range<usize>) -> Vec<Range<usize>> {
        let best = self.lines_to(range.start, range.end);
        let mut lines = Vec::new();
        let mut end = range.end;
        let mut count: Option<usize> = None;
        while end > range.start {
            let by_count = best.get(end - range.start - 1).map_or(&[][..], Vec::as_slice);
            let line = match count {
                Some(count) => by_count.get(self.place(count)).copied().flatten(),
                None => by_count.iter().flatten().min_by_key(|line| line.cost).copied(),
            };
            let (begin, lines_before) = line.map_or((range.start, 0), |line| (line.begin, line.cost.lines - 1));
            lines.push(begin..end);
            (end, count) = (begin, Some(lines_before));
        }
        lines.reverse();
        lines
    }

    /// Where so many lines are kept: by their number, if that is limited.
    const fn place(&self, lines: usize) -> usize {
        if self.rules.lines == usize::MAX { 0 } else { lines.saturating_sub(1) }
    }

    /// For the atoms from `begin` to each end up to `limit`, as far as a cue may hold them: by the number of lines, the
    /// best lines. Whether there is room does not depend on how well they break.
    fn lines_to(&self, begin: usize, limit: usize) -> Vec<Vec<Option<Line>>> {
        let width = self.rules.line_chars as u64;
        let room = (self.rules.lines as u64).saturating_mul(width + 1);
        let most = self.place(self.rules.lines) + 1;
        let mut best: Vec<Vec<Option<Line>>> = Vec::new();
        for end in begin + 1..=limit {
            if end > begin + 1 && self.columns(&(begin..end)) > room {
                break;
            }
            let mut by_count: Vec<Option<Line>> = vec![None; most];
            for from in (begin..end).rev() {
                let columns = self.columns(&(from..end));
                if columns > width && from + 1 < end {
                    break;
                }
                let square = columns.saturating_mul(columns);
                let mut keep = |cost: LineCost| {
                    let Some(least) = by_count.get_mut(self.place(cost.lines)) else { return };
                    if least.is_none_or(|least| cost < least.cost) {
                        *least = Some(Line { cost, begin: from });
                    }
                };
                if from == begin {
                    keep(LineCost { lines_and_never: 1, raggedness: square, lines: 1, squares: square, breaks: 0 });
                    continue;
                }
                let place = self.atoms[from - 1].break_after;
                let never = 2 * usize::from(place == Break::Never);
                for Line { cost: before, .. } in best[from - begin - 1].iter().flatten() {
                    keep(LineCost {
                        lines_and_never: before.lines_and_never + 1 + never,
                        raggedness: before.raggedness.saturating_add(square).saturating_add(place.in_cue()),
                        lines: before.lines + 1,
                        squares: before.squares.saturating_add(square),
                        breaks: before.breaks.saturating_add(place.in_cue()),
                    });
                }
            }
            best.push(by_count);
        }
        best
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::super::Profile;
    use super::super::atoms::atoms;
    use super::*;
    use crate::caption::testing::fragment;
    use crate::caption::{Probability, Word};
    use crate::time::Timestamp;

    impl Layout<'_> {
        /// The fewest lines, filled from the first on.
        fn fewest_lines(&self, range: Range<usize>) -> usize {
            let (mut lines, mut from) = (1, range.start);
            for end in range.start + 1..=range.end {
                if end - from > 1 && self.columns(&(from..end)) > self.rules.line_chars as u64 {
                    (lines, from) = (lines + 1, end - 1);
                }
            }
            lines
        }

        /// What these cues cost; `None` where one has too many lines.
        fn cost(&self, cues: &[Range<usize>]) -> Option<CueCost> {
            let (mut sum, mut last_start) = (CueCost::default(), 0);
            for cue in cues {
                let lines = self.lines_from(cue.start).into_iter().find(|(end, _)| *end == cue.end);
                let fits = self.fewest_lines(cue.clone()) <= self.rules.lines;
                assert_eq!(lines.is_some(), fits, "{cue:?}");
                let soonest = if cue.start == 0 { 0 } else { last_start + 1 };
                let (cost, start_ms) = self.cue_cost(cue.clone(), &lines?.1, last_start, soonest, None);
                (sum, last_start) = (sum.plus(cost), start_ms);
            }
            Some(sum)
        }
    }

    fn all_ways(count: usize) -> impl Iterator<Item = Vec<Range<usize>>> {
        (0..1_usize << (count - 1)).map(move |cuts| {
            let ends = (1..=count).filter(|&end| end == count || cuts >> (end - 1) & 1 == 1);
            ends.scan(0, |begin, end| Some(std::mem::replace(begin, end)..end)).collect()
        })
    }

    proptest! {
        #[test]
        fn no_other_cues_keep_more_of_the_rules(
            words in prop::collection::vec(("(the|a|is|of|and|Ada|[a-z]{1,20}[.,]?)", 1_i64..1200, 0_i64..600), 1..10),
        ) {
            let text = words.iter().map(|(text, ..)| text.as_str()).collect::<Vec<_>>().join(" ");
            let at = |ms: i64| Timestamp::from_nanos(ms * 1_000_000);
            let mut now = 0;
            let mut fragment = fragment(0, 1_000_000, "a", &text);
            fragment.language = Some(crate::config::Language::ENGLISH);
            fragment.words = words.into_iter().map(|(text, lasts, pause)| {
                let (start_time, end_time) = (at(now), at(now + lasts));
                now += lasts + pause;
                Word { text, start_time, end_time, confidence: Probability::default() }
            }).collect();
            let atoms = atoms(&fragment, Timestamp::EPOCH, 32);
            for profile in [Profile::Netflix, Profile::Bbc, Profile::Dcmp, Profile::Cea608] {
                let layout = Layout::new(&atoms, profile.rules());
                let cues = layout.cues(None, None);
                let least = all_ways(atoms.len()).filter_map(|cues| layout.cost(&cues)).min();
                prop_assert!(layout.cost(&cues) == least, "{profile} {cues:?}");
                for cue in cues {
                    let lines = layout.lines(cue.clone());
                    prop_assert!(lines.len() <= profile.rules().lines && lines[0].start == cue.start);
                }
            }
        }
    }
}
