//! Display cues: what is on the screen, and when.
//!
//! In: a transcript's [`Fragment`]s, in its order. Out: [`DisplayCue`]s by the rules of a [`Profile`], in the order of their
//! starts, and a count of every rule that could not be kept.
//!
//! A caption of up to ten seconds becomes as many cues as it takes. Where rules collide, the first of these is kept:
//! all the text; length and number of lines; sync; duration and gaps; reading speed. What is then still free is decided
//! by how well lines and cues break: behind punctuation, before a conjunction or a preposition, never between an article
//! and its noun, an auxiliary and its verb, a first and a last name.
//!
//! - Words have the recogniser's times where the fragment has them, else a time by their place in the text.
//! - A cue never begins before its first word, nor before the recording: what was said earlier is late. It may linger where that keeps a rule, never into the speaker's next cue.
//! - A cue depends on the caption that follows it: one caption a speaker is held back until the next one is there, or
//!   the transcript has moved on far enough ([`HORIZON_MS`]).
//! - Speakers who talk at the same time have cues at the same time; rules on gaps and on sending hold within one speaker,
//!   and where together they break those on lines and on sending, that is counted. Of one speaker's captions, one that begins before the last has ended is shown beside it, and counted.

use std::cmp::Reverse;
use std::collections::binary_heap::PeekMut;
use std::collections::{BTreeMap, BinaryHeap};

use serde::Serialize;

use crate::caption::Fragment;
use crate::time::Timestamp;

mod atoms;
mod layout;
mod phrases;
mod profile;
mod timing;

pub(crate) use atoms::{ms_since, words};
pub use profile::{Profile, ProfileRules, Reading, UnknownProfile};

use atoms::{Atom, atoms, first_ms};
use layout::Layout;
use phrases::Break;
use profile::sending_ms;
use timing::{Ending, end_of_cue, is_bad_gap};

/// A caption is held back no longer than until one begins this much behind its end: a cue lingers for two seconds at
/// most, and no rule on gaps reaches beyond one.
pub const HORIZON_MS: u64 = 3000;

/// A speaker who said nothing for so long is forgotten: the four rows of a CEA-608 caption take seven seconds to be sent
/// at most.
const FORGET_MS: u64 = 60_000;

/// One cue as it is shown. Times in milliseconds since the recording began.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct DisplayCue {
    /// When it comes.
    pub start_ms: u64,
    /// When it goes: after `start_ms`.
    pub end_ms: u64,
    /// Who speaks.
    pub speaker_id: String,
    /// Its lines, at least one, each without spaces at its ends.
    pub lines: Vec<String>,
    /// Where words begin, of a fragment whose words are known: in the order of the text, with growing times between
    /// start and end of the cue. The first word of a cue needs none.
    pub stamps: Vec<Stamp>,
}

/// Where in a cue a word begins.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Stamp {
    /// Index of its line.
    pub line: usize,
    /// Byte of the line.
    pub byte: usize,
    /// Milliseconds since the recording began.
    pub ms: u64,
}

/// How many cues there are, and how often each rule could not be kept.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize)]
#[non_exhaustive]
pub struct CueCounts {
    /// Cues.
    pub cues: u64,
    /// Lines of a single word that is longer than a line.
    pub line_too_long: u64,
    /// Cues that begin too far behind their first word, or end too far behind their last.
    pub late: u64,
    /// Cues that are shorter than a cue may be.
    pub too_short: u64,
    /// Cues that are longer than a cue may be.
    pub too_long: u64,
    /// Gaps between two cues of a speaker that are too short, or neither closed nor long enough.
    pub gap: u64,
    /// Cues that are too short to be read.
    pub too_fast: u64,
    /// Ends of lines and cues between words that belong together.
    pub split_phrase: u64,
    /// Captions that begin before the speaker's last one has ended.
    pub overlap: u64,
    /// Cues beside which others leave too little room: more lines on the screen than a cue may have, or less time than
    /// it takes to be sent. Speakers who talk at once are shown at once.
    pub crowded: u64,
}

impl CueCounts {
    /// Adds the counts of another transcript.
    pub fn add(&mut self, other: &Self) {
        let Self { cues, line_too_long, late, too_short, too_long, gap, too_fast, split_phrase, overlap, crowded } =
            other;
        self.cues += cues;
        self.line_too_long += line_too_long;
        self.late += late;
        self.too_short += too_short;
        self.too_long += too_long;
        self.gap += gap;
        self.too_fast += too_fast;
        self.split_phrase += split_phrase;
        self.overlap += overlap;
        self.crowded += crowded;
    }
}

/// Makes display cues of a transcript. Holds one caption a speaker who speaks, and the cues that one of them may precede.
#[derive(Debug)]
pub struct DisplayCues {
    profile: Profile,
    origin: Timestamp,
    tracks: BTreeMap<String, Track>,
    /// Cues that are decided, and wait for those that begin before them.
    decided: BinaryHeap<Reverse<Decided>>,
    /// Fragments so far.
    fragments: u64,
    /// When cues that were given out end, and how many lines they have, as far as the last one found them on the screen.
    on_screen: Vec<(u64, usize)>,
    /// When the last cue that was given out begins.
    last_start_ms: u64,
    counts: CueCounts,
}

/// What is known of a speaker.
#[derive(Debug, Default)]
struct Track {
    pending: Option<Pending>,
    /// When the last cue began and ended.
    last: Option<(u64, u64)>,
    /// The end of cues that later captions are shown beside.
    busy_until_ms: u64,
}

#[derive(Debug)]
struct Pending {
    fragment: Fragment,
    number: u64,
    start_ms: u64,
    stop_ms: u64,
}

/// In the order of the file: by start, then by the fragment's place, then by the cue's.
#[derive(Debug)]
struct Decided {
    key: (u64, u64, usize),
    cue: DisplayCue,
}

impl PartialEq for Decided {
    fn eq(&self, other: &Self) -> bool {
        self.key == other.key
    }
}

impl Eq for Decided {}

impl PartialOrd for Decided {
    fn partial_cmp(&self, other: &Self) -> Option<std::cmp::Ordering> {
        Some(self.cmp(other))
    }
}

impl Ord for Decided {
    fn cmp(&self, other: &Self) -> std::cmp::Ordering {
        self.key.cmp(&other.key)
    }
}

impl DisplayCues {
    /// Cues for one recording that began at `origin`.
    #[must_use]
    pub fn new(profile: Profile, origin: Timestamp) -> Self {
        Self {
            profile,
            origin,
            tracks: BTreeMap::new(),
            decided: BinaryHeap::new(),
            fragments: 0,
            on_screen: Vec::new(),
            last_start_ms: 0,
            counts: CueCounts::default(),
        }
    }

    /// Takes the next fragment; one without text has no cue. Then [`poll`](Self::poll) until there is nothing.
    ///
    /// Fragments are expected in [`Fragment::transcript_order`]. What comes out of order is shown at its time all the
    /// same, but its cues may come behind later ones.
    pub fn push(&mut self, fragment: &Fragment) {
        if words(&fragment.text).next().is_none() {
            return;
        }
        let start_ms = ms_since(self.origin, fragment.start_time);
        // As the words have their times: an end after the start.
        let stop_ms = ms_since(self.origin, fragment.stop_time).max(start_ms + 1);
        // One space between words: a piece of the text is then as it is shown.
        let text = words(&fragment.text).collect::<Vec<_>>().join(" ");
        let fragment = Fragment { text, ..fragment.clone() };
        let speaker_id = fragment.speaker_id.clone();
        let next_ms = first_ms(&fragment, self.origin);
        let pending = Pending { fragment, number: self.fragments, start_ms, stop_ms };
        self.fragments += 1;
        if self.profile == Profile::None {
            self.decide(&pending, None, None);
            return;
        }
        self.settle(start_ms);
        let mut track = self.tracks.remove(&speaker_id).unwrap_or_default();
        let before = track.pending.take();
        let until = before.as_ref().map_or(track.busy_until_ms, |before| before.stop_ms.max(track.busy_until_ms));
        let overlaps = start_ms < until;
        if let Some(before) = before {
            let last = self.decide(&before, track.last, (!overlaps).then_some(next_ms));
            track.last = Some(last);
        }
        if overlaps {
            self.counts.overlap += 1;
            track.busy_until_ms = until.max(track.last.take().map_or(0, |(_, end)| end));
        }
        track.pending = Some(pending);
        self.tracks.insert(speaker_id, track);
    }

    /// The next cue whose place in the file is known.
    pub fn poll(&mut self) -> Option<DisplayCue> {
        // A caption that is held back may still have a cue before this one.
        let held =
            self.tracks.values().filter_map(|track| track.pending.as_ref()).map(|pending| pending.start_ms).min();
        let next = self.decided.peek_mut()?;
        let may_go = held.is_none_or(|held| next.0.key.0 < held);
        let cue = may_go.then(|| PeekMut::pop(next).0.cue)?;
        self.count_crowded(&cue);
        Some(cue)
    }

    /// Counts a cue for which those of all speakers before it leave too little room.
    fn count_crowded(&mut self, cue: &DisplayCue) {
        let rules = self.profile.rules();
        self.on_screen.retain(|&(end_ms, _)| end_ms > cue.start_ms);
        self.on_screen.push((cue.end_ms, cue.lines.len()));
        let lines: usize = self.on_screen.iter().map(|&(_, lines)| lines).sum();
        let ready_ms = self.last_start_ms + sending_ms(cue.lines.iter().map(String::as_str));
        let crowded = lines > rules.lines || (rules.paced && cue.start_ms < ready_ms);
        self.counts.crowded += u64::from(crowded);
        self.last_start_ms = self.last_start_ms.max(cue.start_ms);
    }

    /// Nothing follows: decides what was held back. Then [`poll`](Self::poll) until there is nothing.
    pub fn finish(&mut self) {
        self.settle(u64::MAX);
    }

    /// What was decided so far, and which of the cues that were polled were [`crowded`](CueCounts::crowded).
    #[must_use]
    pub const fn counts(&self) -> CueCounts {
        self.counts
    }

    /// Decides the captions that nothing from `now_ms` on can change, and forgets who has long been silent.
    fn settle(&mut self, now_ms: u64) {
        let mut tracks = std::mem::take(&mut self.tracks);
        tracks.retain(|_, track| {
            let is_past = |ms: u64, by_ms: u64| ms.saturating_add(by_ms) <= now_ms;
            if let Some(pending) = track.pending.take_if(|pending| is_past(pending.stop_ms, HORIZON_MS)) {
                track.last = Some(self.decide(&pending, track.last, None));
            }
            track.pending.is_some()
                || !is_past(track.busy_until_ms, FORGET_MS)
                || track.last.is_some_and(|(_, end_ms)| !is_past(end_ms, FORGET_MS))
        });
        self.tracks = tracks;
    }

    /// Makes the cues of a caption; when the last of them begins and ends. `after` is when the speaker's last cue began
    /// and ended, `next_ms` when the first word of the speaker's next caption begins.
    fn decide(&mut self, pending: &Pending, after: Option<(u64, u64)>, next_ms: Option<u64>) -> (u64, u64) {
        let rules = self.profile.rules();
        let Pending { fragment, number, start_ms, stop_ms } = pending;
        let atoms = atoms(fragment, self.origin, rules.line_chars);
        let layout = Layout::new(&atoms, rules);
        let ranges = layout.cues(after, next_ms);
        let cues: Vec<_> = ranges.iter().map(|range| layout.lines(range.clone())).collect();
        let texts: Vec<Vec<String>> =
            cues.iter().map(|lines| lines.iter().map(|line| layout.text(line.clone())).collect()).collect();

        let mut starts: Vec<u64> = Vec::with_capacity(ranges.len());
        for (range, lines) in ranges.iter().zip(&texts) {
            // Before the first cue is the beginning of the recording.
            let (last_start, soonest) = starts.last().map(|last| (*last, *last + 1)).or(after).unwrap_or_default();
            let mut start = if self.profile == Profile::None { *start_ms } else { atoms[range.start].start_ms };
            start = start.max(soonest);
            if rules.paced {
                start = start.max(last_start + sending_ms(lines.iter().map(String::as_str)));
            }
            starts.push(start);
        }

        let mut last = after;
        for (index, (range, lines)) in ranges.iter().zip(texts).enumerate() {
            let (first, end) = (&atoms[range.start], &atoms[range.end - 1]);
            let start_ms = starts[index];
            let next_ms = starts.get(index + 1).copied().or(next_ms);
            let end_ms = if self.profile == Profile::None {
                *stop_ms
            } else {
                let reading_ms = layout.reading_ms(range);
                end_of_cue(&rules, &Ending { start_ms, speech_end_ms: end.end_ms, reading_ms, next_ms }).end_ms
            };
            let late = start_ms.saturating_sub(first.start_ms) + first.lost_ms > rules.max_late_ms
                || end_ms > end.end_ms.saturating_add(rules.max_linger_ms);
            let lasts = end_ms - start_ms;
            let gap =
                last.is_some_and(|(_, last_end): (u64, u64)| is_bad_gap(&rules, start_ms.saturating_sub(last_end)));
            let counts = &mut self.counts;
            counts.cues += 1;
            counts.late += u64::from(late);
            counts.too_short += u64::from(lasts < rules.min_ms);
            counts.too_long += u64::from(lasts > rules.max_ms);
            counts.too_fast += u64::from(lasts < layout.reading_ms(range));
            counts.gap += u64::from(gap);
            for line in &cues[index] {
                let is_last = line.end == atoms.len();
                counts.split_phrase += u64::from(!is_last && atoms[line.end - 1].break_after == Break::Never);
                counts.line_too_long += u64::from(layout.columns(line) > rules.line_chars as u64);
            }
            let stamps = stamps(&atoms, &cues[index], (start_ms, end_ms));
            let cue = DisplayCue { start_ms, end_ms, speaker_id: fragment.speaker_id.clone(), lines, stamps };
            self.decided.push(Reverse(Decided { key: (start_ms, *number, index), cue }));
            last = Some((start_ms, end_ms));
        }
        last.unwrap_or((*start_ms, *stop_ms))
    }
}

/// The words of a cue behind its first whose times lie within it and grow.
fn stamps(atoms: &[Atom<'_>], lines: &[std::ops::Range<usize>], (start_ms, end_ms): (u64, u64)) -> Vec<Stamp> {
    let mut stamps = Vec::new();
    let mut now = start_ms;
    for (line, range) in lines.iter().enumerate() {
        let mut byte = 0;
        for index in range.clone() {
            let atom = &atoms[index];
            let is_first_of_line = index == range.start;
            byte += usize::from(atom.spaced && !is_first_of_line);
            if let Some(ms) = atom.stamp_ms.filter(|&ms| ms > now && ms < end_ms && !(line == 0 && is_first_of_line)) {
                stamps.push(Stamp { line, byte, ms });
                now = ms;
            }
            byte += atom.text.len();
        }
    }
    stamps
}

#[cfg(test)]
mod tests;
