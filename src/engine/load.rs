//! How much there is to do, and what is done without when it is too much.
//!
//! In: what decodes took, and the queue. Out: what a job will cost, the step of the ladder, the jobs to be given up, and
//! how many more tracks fit.

use std::time::{Duration, Instant};

use super::event::OverloadLevel;
use super::workers::{Job, Workers};
use super::{ModelId, Tag, telemetry};
use crate::asr::JobKind;
use crate::sync::atomic::{AtomicU8, AtomicU64, Ordering};
use crate::time::SAMPLE_RATE;

/// Tracks and level where there is nothing to do.
const AT_REST: (usize, OverloadLevel) = (0, OverloadLevel::None);
/// How often the queue is looked through.
const ASSESS_EVERY: Duration = Duration::from_millis(20);
/// The ladder goes down by one step when nothing asked for the present one for so long.
const CALM: Duration = Duration::from_millis(500);
/// What is measured for [`Load::capacity`] is measured for so long at a time.
const MEASURED: Duration = Duration::from_secs(1);
/// Shares of the processors' time that tracks may fill, were it all finals and pipelines or all interims, so that 99 of 100
/// finals are no later than 500 ms and as many interims are made. Interims wait behind finals, and so need more room. Found
/// with `cuewire bench capacity`, with and without interims.
const USABLE: f64 = 0.85;
const USABLE_BY_INTERIMS: f64 = 0.5;
/// What a decode costs beside its audio, as seconds of audio.
const FIXED_S: f64 = 0.5;

/// Weight of the newest of a number of measurements: an average at first, and then one over about the last `window`.
fn smoothed(old: f64, new: f64, measured: u64, window: u64) -> f64 {
    old + (new - old) / (measured.min(window) + 1) as f64
}

/// Seconds, and how many went into them.
#[derive(Debug, Default)]
struct Average {
    value: AtomicU64,
    measured: AtomicU64,
}

impl Average {
    fn get(&self) -> Option<f64> {
        (self.measured.load(Ordering::Relaxed) > 0).then(|| f64::from_bits(self.value.load(Ordering::Relaxed)))
    }

    /// Two threads at a time may lose a measurement: the next one is as good.
    fn add(&self, new: f64, window: u64) {
        let measured = self.measured.fetch_add(1, Ordering::Relaxed);
        let old = f64::from_bits(self.value.load(Ordering::Relaxed));
        self.value.store(smoothed(old, new, measured, window).to_bits(), Ordering::Relaxed);
    }
}

/// What all threads know of the load.
pub(super) struct Load {
    level: AtomicU8,
    /// Seconds for a second of audio, by model and [`JobKind`].
    costs: Box<[[Average; 3]]>,
    /// What pipelines did; what was done without, as far as one knows; and interims, made or not.
    pipeline_nanos: AtomicU64,
    declined_nanos: AtomicU64,
    interim_nanos: AtomicU64,
    /// Seconds of a processor that a second of a track takes up, with the room that it needs.
    track_cost: Average,
    /// Processors that decoding and pipelines may use.
    processors: usize,
}

fn nanos(duration: Duration) -> u64 {
    u64::try_from(duration.as_nanos()).unwrap_or(u64::MAX)
}

/// What a decode depends on, as far as it is looked at.
#[derive(Clone, Copy, Debug)]
pub(super) struct Work {
    pub(super) kind: JobKind,
    pub(super) model: ModelId,
    /// Of audio.
    pub(super) samples: usize,
}

impl Work {
    fn seconds(self) -> f64 {
        self.samples as f64 / f64::from(SAMPLE_RATE) + FIXED_S
    }
}

impl Load {
    pub(super) fn new(models: usize, processors: usize) -> Self {
        Self {
            level: AtomicU8::default(),
            costs: (0..models).map(|_| Default::default()).collect(),
            pipeline_nanos: AtomicU64::default(),
            declined_nanos: AtomicU64::default(),
            interim_nanos: AtomicU64::default(),
            track_cost: Average::default(),
            processors,
        }
    }

    pub(super) fn level(&self) -> OverloadLevel {
        OverloadLevel::ALL[usize::from(self.level.load(Ordering::Relaxed))]
    }

    /// How long it will take; nothing while that is not known.
    pub(super) fn cost(&self, work: Work) -> Duration {
        let cost = self.average(work).and_then(Average::get).unwrap_or(0.0);
        Duration::from_secs_f64(cost * work.seconds())
    }

    pub(super) fn was_decoded(&self, work: Work, took: Duration) {
        if let Some(average) = self.average(work) {
            average.add(took.as_secs_f64() / work.seconds(), 32);
        }
        self.count_interim(work.kind, took);
    }

    fn count_interim(&self, kind: JobKind, time: Duration) {
        if kind == JobKind::Interim {
            self.interim_nanos.fetch_add(nanos(time), Ordering::Relaxed);
        }
    }

    fn average(&self, work: Work) -> Option<&Average> {
        self.costs.get(work.model.0).map(|kinds| &kinds[work.kind as usize])
    }

    pub(super) fn was_declined(&self, kind: JobKind, cost: Duration) {
        self.declined_nanos.fetch_add(nanos(cost), Ordering::Relaxed);
        self.count_interim(kind, cost);
    }

    pub(super) fn pipeline_was_busy(&self, time: Duration) {
        self.pipeline_nanos.fetch_add(nanos(time), Ordering::Relaxed);
    }

    /// How many more tracks like those so far fit beside `tracks`; `None` before a track was measured.
    pub(super) fn capacity(&self, tracks: usize) -> Option<usize> {
        let cost = self.track_cost.get().filter(|cost| *cost > 0.0)?;
        let fit = self.processors as f64 / cost;
        Some((fit as usize).saturating_sub(tracks))
    }
}

/// Who looks after the load: one pipeline does.
pub(super) struct Ladder {
    level: OverloadLevel,
    /// When something last asked for the present step, or it was reached.
    asked: Instant,
    assessed: Instant,
    /// Tracks and level as they were last told.
    told: (usize, OverloadLevel),
    window: Window,
}

/// Since when what was done is measured.
struct Window {
    start: Instant,
    /// What was [`done`] by then.
    done: [Duration; 2],
    /// Tracks, times the time that they were there.
    track_time: Duration,
}

impl Ladder {
    pub(super) fn new(now: Instant) -> Self {
        let window = Window { start: now, done: [Duration::ZERO; 2], track_time: Duration::ZERO };
        Self { level: OverloadLevel::None, asked: now, assessed: now, told: AT_REST, window }
    }

    /// Whether nobody needs to look before there is a track.
    pub(super) fn is_at_rest(&self) -> bool {
        self.level == OverloadLevel::None && self.told == AT_REST
    }

    /// Looks through the queue, if it is time to: takes back the jobs that will come too late, which are to be answered
    /// with [`Shed`](crate::asr::DecodeError::Shed). The new step of the ladder, if it changed.
    pub(super) fn assess(
        &mut self,
        now: Instant,
        tracks: usize,
        workers: &Workers<Tag>,
        load: &Load,
    ) -> (Vec<Job<Tag>>, Option<OverloadLevel>) {
        let since = now.duration_since(self.assessed);
        if since < ASSESS_EVERY {
            return (Vec::new(), None);
        }
        self.assessed = now;
        if since < MEASURED {
            self.window.track_time += since * u32::try_from(tracks).unwrap_or(u32::MAX);
        } else {
            // Nobody looked: there was nothing to be measured.
            self.window = Window { start: now, done: done(workers, load), track_time: Duration::ZERO };
        }
        let level = self.level;
        let mut wanted = OverloadLevel::None;
        let taken = workers.take_back(|job, ahead| {
            let (asked, given_up) = judge(level, job.job.kind, &job.tag, now, ahead + job.cost);
            wanted = wanted.max(asked);
            given_up
        });
        for job in &taken {
            load.was_declined(job.job.kind, job.cost);
        }
        let is_measured = self.measure(now, workers, load);
        if wanted >= level {
            self.asked = now;
            self.level = wanted;
        } else if now.duration_since(self.asked) >= CALM {
            self.asked = now;
            self.level = OverloadLevel::ALL[level as usize - 1];
        }
        load.level.store(self.level as u8, Ordering::Relaxed);
        // What is over is told at once: it may be hours before somebody looks again.
        let there_is = (tracks, self.level);
        if is_measured || (there_is == AT_REST && self.told != AT_REST) {
            self.told = there_is;
            telemetry::assessed(tracks, self.level, load.capacity(tracks));
        }
        (taken, Some(self.level).filter(|now| *now != level))
    }

    /// Whether it was time to.
    fn measure(&mut self, now: Instant, workers: &Workers<Tag>, load: &Load) -> bool {
        if now.duration_since(self.window.start) < MEASURED {
            return false;
        }
        let done = done(workers, load);
        if !self.window.track_time.is_zero() {
            let [all, interims] = [0, 1].map(|i| done[i].saturating_sub(self.window.done[i]).as_secs_f64());
            let taken = (all - interims).max(0.0) / USABLE + interims / USABLE_BY_INTERIMS;
            load.track_cost.add(taken / self.window.track_time.as_secs_f64(), 20);
        }
        self.window = Window { start: now, done, track_time: Duration::ZERO };
        true
    }
}

/// Up to now: everything, and interims.
fn done(workers: &Workers<Tag>, load: &Load) -> [Duration; 2] {
    let nanos = |counted: &AtomicU64| Duration::from_nanos(counted.load(Ordering::Relaxed));
    let all = workers.busy() + nanos(&load.pipeline_nanos) + nanos(&load.declined_nanos);
    [all, nanos(&load.interim_nanos)]
}

/// Which step a job that waits asks for, and whether it is given up. It will be answered `in_` from `now`.
fn judge(level: OverloadLevel, kind: JobKind, tag: &Tag, now: Instant, in_: Duration) -> (OverloadLevel, bool) {
    let waited = now.saturating_duration_since(tag.due);
    match kind {
        // It asks for nothing to be done without: it is the first that is.
        JobKind::Translation => (OverloadLevel::None, level > OverloadLevel::None || waited > tag.patience),
        JobKind::Interim => {
            let asked = if waited * 2 > tag.patience { OverloadLevel::SpacedInterims } else { OverloadLevel::None };
            // By then there is more to hear: it is asked anew.
            (asked, level >= OverloadLevel::NoInterims || waited > tag.patience)
        }
        JobKind::Final => {
            let late = (now + in_).saturating_duration_since(tag.due);
            if late > tag.patience {
                (OverloadLevel::Shedding, true)
            } else if late * 5 > tag.patience {
                (OverloadLevel::SmallerModel, false)
            } else if late * 13 > tag.patience {
                (OverloadLevel::NoInterims, false)
            } else {
                (OverloadLevel::None, false)
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::engine::TrackId;

    #[test]
    fn what_waits_asks_for_a_step_by_how_late_it_will_be() {
        let start = Instant::now();
        let tag = Tag { track: TrackId(0), due: start, patience: Duration::from_secs(2) };
        let asked = |level, kind, now_ms, in_ms| {
            judge(level, kind, &tag, start + Duration::from_millis(now_ms), Duration::from_millis(in_ms))
        };
        use OverloadLevel::{NoInterims, None, Shedding, SmallerModel, SpacedInterims};
        for (level, kind, now_ms, in_ms, expected) in [
            (None, JobKind::Final, 0, 150, (None, false)),
            (None, JobKind::Final, 100, 60, (NoInterims, false)),
            (None, JobKind::Final, 0, 410, (SmallerModel, false)),
            (Shedding, JobKind::Final, 1_500, 500, (SmallerModel, false)),
            (None, JobKind::Final, 1_500, 510, (Shedding, true)),
            (None, JobKind::Interim, 1_000, 5_000, (None, false)),
            (None, JobKind::Interim, 1_001, 0, (SpacedInterims, false)),
            (None, JobKind::Interim, 2_001, 0, (SpacedInterims, true)),
            (NoInterims, JobKind::Interim, 0, 0, (None, true)),
            (None, JobKind::Translation, 2_000, 5_000, (None, false)),
            (None, JobKind::Translation, 2_001, 0, (None, true)),
            (SpacedInterims, JobKind::Translation, 0, 0, (None, true)),
        ] {
            assert_eq!(asked(level, kind, now_ms, in_ms), expected, "{level:?} {kind:?} {now_ms} + {in_ms} ms");
        }
    }
}
