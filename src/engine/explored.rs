//! The engine in whatever order its threads run.
//!
//! In: jobs, events, pushes and ends from threads of their own. Out: what must hold of all of them. A deadlock is found by
//! the explorer itself.

use std::collections::BTreeMap;
use std::num::NonZeroUsize;
use std::pin::Pin;
use std::sync::{Arc, PoisonError};
use std::task::Poll;
use std::time::{Duration, Instant};

use futures_core::Stream;

use super::ring::{Pushed, Shared, ring};
use super::subscribe::Subscribers;
use super::workers::{Answer, Idle, Job, Workers};
use super::{Engine, EngineConfig, EngineEvent, Message, PushError, RING_FRAMES, TrackConfig, TrackId, TrackReport};
use crate::asr::team::Team;
use crate::asr::{Cancel, DecodeError, DecodeJob, Decoder, Hypothesis, JobId, JobKind, ScriptedDecoder};
use crate::audio::Pcm;
use crate::caption::{CaptionEvent, GapReason};
use crate::config::LanguageSetting;
use crate::sync::atomic::{AtomicBool, AtomicUsize, Ordering};
use crate::sync::channel::unbounded;
use crate::sync::explored::explore;
use crate::sync::{Mutex, now, thread};
use crate::time::Timestamp;
use support::sound;

#[path = "../../tests/support/session.rs"]
mod support;

fn two() -> NonZeroUsize {
    NonZeroUsize::new(2).unwrap()
}

fn job(id: u64) -> Job<()> {
    Job::new((), DecodeJob::new(JobId(id), Arc::from([0.0; 16]), LanguageSetting::default()))
}

fn yes(job: &DecodeJob) -> Result<Hypothesis, DecodeError> {
    Ok(Hypothesis::certain("yes", job))
}

type Answers = Arc<Mutex<Vec<(u64, Result<Hypothesis, DecodeError>)>>>;

/// Workers, and their answers in the order in which they come.
fn workers<D: Decoder + 'static>(
    threads: usize,
    decoder: impl Fn(&Idle) -> D + Send + Sync + 'static,
) -> (Workers<()>, Answers) {
    let answers = Answers::default();
    let to = answers.clone();
    let note = move |answer: Answer<()>| {
        to.lock().unwrap_or_else(PoisonError::into_inner).push((answer.job.0, answer.result));
    };
    (Workers::start(NonZeroUsize::new(threads).unwrap(), Arc::new(decoder), note).unwrap(), answers)
}

fn wait_for(answers: &Answers, count: usize) {
    while answers.lock().unwrap().len() < count {
        thread::yield_now();
    }
}

fn ids(answers: &Answers) -> Vec<u64> {
    answers.lock().unwrap().iter().map(|(id, _)| *id).collect()
}

#[test]
fn each_job_is_answered_or_taken_back_and_only_once() {
    explore(2_000, || {
        let (workers, answers) = workers(2, |_: &Idle| ScriptedDecoder::new(yes));
        let workers = Arc::new(workers);
        let submitters: Vec<_> = (0..2)
            .map(|i| {
                let workers = workers.clone();
                thread::spawn(move || (0..2).for_each(|j| workers.submit(job(i * 2 + j))))
            })
            .collect();
        let taken = workers.take_back(|job, _| job.job.id.0 % 2 == 1);
        submitters.into_iter().for_each(|thread| thread.join().unwrap());
        wait_for(&answers, 4 - taken.len());
        let mut all = ids(&answers);
        all.extend(taken.iter().map(|job| job.job.id.0));
        all.sort_unstable();
        assert_eq!(all, [0, 1, 2, 3]);
    });
}

#[test]
fn a_worker_that_finds_its_job_taken_back_goes_on_waiting() {
    explore(1_000, || {
        let (workers, answers) = workers(1, |_: &Idle| ScriptedDecoder::new(yes));
        workers.submit(job(0));
        let taken = workers.take_back(|_, _| true);
        workers.submit(job(1));
        wait_for(&answers, 2 - taken.len());
        assert!(ids(&answers).contains(&1));
    });
}

#[test]
fn what_waits_is_taken_by_kind_and_deadline() {
    explore(1_000, || {
        let gate = Arc::new(AtomicBool::new(false));
        let (shut, started) = (gate.clone(), Arc::new(AtomicBool::new(false)));
        let start = started.clone();
        let (workers, answers) = workers(1, move |_: &Idle| {
            let (shut, start) = (shut.clone(), start.clone());
            ScriptedDecoder::new(move |job: &DecodeJob| {
                start.store(true, Ordering::SeqCst);
                while job.id.0 == 0 && !shut.load(Ordering::SeqCst) {
                    thread::yield_now();
                }
                yes(job)
            })
        });
        workers.submit(job(0));
        while !started.load(Ordering::SeqCst) {
            thread::yield_now();
        }
        let workers = Arc::new(workers);
        let now = now();
        let jobs =
            [(1, JobKind::Interim, 0), (2, JobKind::Final, 9), (3, JobKind::Translation, 0), (4, JobKind::Final, 5)];
        let submitters = jobs.map(|(id, kind, due_ms)| {
            let workers = workers.clone();
            thread::spawn(move || {
                let mut job = job(id);
                (job.job.kind, job.deadline) = (kind, now + Duration::from_millis(due_ms));
                workers.submit(job);
            })
        });
        submitters.into_iter().for_each(|thread| thread.join().unwrap());
        gate.store(true, Ordering::SeqCst);
        wait_for(&answers, 5);
        assert_eq!(ids(&answers), [0, 4, 2, 1, 3]);
    });
}

/// Works until it is told that nobody wants it.
struct Endless(Arc<AtomicUsize>);

impl Decoder for Endless {
    fn decode(&mut self, _: &DecodeJob, cancel: &Cancel) -> Result<Hypothesis, DecodeError> {
        self.0.fetch_add(1, Ordering::SeqCst);
        while !cancel.is_cancelled() {
            thread::yield_now();
        }
        Err(DecodeError::Cancelled)
    }
}

#[test]
fn a_job_is_called_off_wherever_it_is() {
    explore(2_000, || {
        let (workers, answers) = workers(1, |_: &Idle| Endless(Arc::default()));
        let jobs = [job(0), job(1)];
        let cancels = jobs.each_ref().map(|job| job.cancel.clone());
        let canceller = thread::spawn(move || cancels.iter().for_each(Cancel::cancel));
        jobs.into_iter().for_each(|job| workers.submit(job));
        wait_for(&answers, 2);
        canceller.join().unwrap();
        assert!(answers.lock().unwrap().iter().all(|(_, result)| *result == Err(DecodeError::Cancelled)));
    });
}

#[test]
fn workers_that_are_dropped_are_gone_and_answer_nothing_twice() {
    explore(2_000, || {
        let living = Arc::new(AtomicUsize::new(0));
        let count = living.clone();
        let (workers, answers) = workers(2, move |_: &Idle| {
            let alive = Alive::new(&count);
            ScriptedDecoder::new(move |job: &DecodeJob| {
                let _ = &alive;
                yes(job)
            })
        });
        (0..3).for_each(|id| workers.submit(job(id)));
        drop(workers);
        assert_eq!(living.load(Ordering::SeqCst), 0, "a thread has a decoder yet");
        let answered = ids(&answers);
        assert!((0..3).all(|id| answered.iter().filter(|job| **job == id).count() <= 1), "{answered:?}");
    });
}

/// Counts itself.
struct Alive(Arc<AtomicUsize>);

impl Alive {
    fn new(count: &Arc<AtomicUsize>) -> Self {
        count.fetch_add(1, Ordering::SeqCst);
        Self(count.clone())
    }
}

impl Drop for Alive {
    fn drop(&mut self) {
        self.0.fetch_sub(1, Ordering::SeqCst);
    }
}

/// Does each job in parts, with an idle worker if there is one.
struct Helped(Team<usize>);

impl Decoder for Helped {
    fn decode(&mut self, job: &DecodeJob, _: &Cancel) -> Result<Hypothesis, DecodeError> {
        let done = [const { AtomicUsize::new(0) }; 3];
        self.0.run(3, |scratch, i| {
            *scratch += 1;
            done[i].fetch_add(1, Ordering::SeqCst);
        });
        assert!(done.iter().all(|times| times.load(Ordering::SeqCst) == 1), "a part was left out or done twice");
        let [mine, other] = &mut self.0.work;
        assert_eq!(std::mem::take(mine) + std::mem::take(other), 3);
        yes(job)
    }
}

#[test]
fn workers_that_help_each_other_do_their_own_jobs_too() {
    explore(3_000, || {
        let (workers, answers) = workers(2, |idle: &Idle| Helped(Team::new(Some(Arc::new(idle.clone())))));
        (0..3).for_each(|id| workers.submit(job(id)));
        wait_for(&answers, 3);
        drop(workers);
        let mut answers = std::mem::take(&mut *answers.lock().unwrap());
        answers.sort_by_key(|(id, _)| *id);
        assert!(answers.iter().map(|(id, _)| *id).eq(0..3));
        assert!(answers.iter().all(|(_, result)| result.is_ok()), "{answers:?}");
    });
}

/// An event of which none is left out, told apart by its numbers.
fn gap(by: u64, number: i64) -> EngineEvent {
    let (from, to) = (Timestamp::from_nanos(number), Timestamp::from_nanos(number + 1));
    let event = CaptionEvent::Gap { from, to, speaker_id: "a".into(), reason: GapReason::NoAudio };
    EngineEvent::Caption { track: TrackId(by), event, mark: 0, ledger: None }
}

/// Asserts that these are all gaps of both publishers, those of each in their order.
fn assert_all_heard(events: &[EngineEvent], each: i64) {
    let mut by = BTreeMap::<TrackId, Vec<i64>>::new();
    for event in events {
        let EngineEvent::Caption { track, event: CaptionEvent::Gap { from, .. }, .. } = event else {
            panic!("{event:?}");
        };
        by.entry(*track).or_default().push(from.as_nanos());
    }
    assert_eq!(by, (0..2).map(|by| (TrackId(by), (0..each).collect())).collect());
}

/// Two threads that publish, while others subscribe and leave; then the end.
fn publish(subscribers: &Arc<Subscribers>) {
    let publishers: Vec<_> = (0..2)
        .map(|by| {
            let subscribers = subscribers.clone();
            thread::spawn(move || (0..2).for_each(|number| subscribers.publish(&gap(by, number))))
        })
        .collect();
    let passing = subscribers.clone();
    let passing = thread::spawn(move || (0..2).for_each(|_| drop(passing.add().try_recv())));
    publishers.into_iter().for_each(|thread| thread.join().unwrap());
    passing.join().unwrap();
    subscribers.end();
}

#[test]
fn who_waits_for_events_misses_none_and_sees_the_end() {
    explore(3_000, || {
        let subscribers = Arc::new(Subscribers::default());
        let blocking = subscribers.add();
        let mut polling = subscribers.add();
        let blocking = thread::spawn(move || std::iter::from_fn(|| blocking.recv()).collect::<Vec<_>>());
        let polling = thread::spawn(move || {
            shuttle::future::block_on(async {
                let mut events = Vec::new();
                while let Some(event) = std::future::poll_fn(|context| Pin::new(&mut polling).poll_next(context)).await
                {
                    events.push(event);
                }
                events
            })
        });
        publish(&subscribers);
        assert_all_heard(&blocking.join().unwrap(), 2);
        assert_all_heard(&polling.join().unwrap(), 2);
    });
}

#[test]
fn a_subscriber_that_is_dropped_while_it_is_told_holds_up_nobody() {
    explore(2_000, || {
        let subscribers = Arc::new(Subscribers::default());
        let mut leaving = subscribers.add();
        let staying = subscribers.add();
        let leaver = thread::spawn(move || {
            // With a waker left behind.
            shuttle::future::block_on(std::future::poll_fn(|context| {
                match Pin::new(&mut leaving).poll_next(context) {
                    Poll::Ready(_) | Poll::Pending => Poll::Ready(()),
                }
            }));
        });
        let subscriber = thread::spawn(move || std::iter::from_fn(|| staying.recv()).collect::<Vec<_>>());
        publish(&subscribers);
        leaver.join().unwrap();
        assert_all_heard(&subscriber.join().unwrap(), 2);
    });
}

#[test]
fn a_push_is_heard_whole_and_in_order_or_declared_lost() {
    explore(400, || {
        let (messages, told) = unbounded();
        let shared = Arc::<Shared>::default();
        let (mut sender, mut receiver) = ring(TrackId(0), shared.clone(), messages);
        // Three of these fill the ring.
        const FRAMES: usize = RING_FRAMES / 3;
        let length = crate::time::nanos_of_samples(FRAMES as u64, 48_000);
        let pusher = thread::spawn(move || {
            for i in 0..5i64 {
                let samples = [f32::from(i as u8) / 8.0 + 0.125; FRAMES];
                match sender.push(Timestamp::from_nanos(i * length), Pcm::mono(48_000, &samples[..]).unwrap()) {
                    Ok(()) | Err(PushError::Full) => {}
                    Err(error) => panic!("{error}"),
                }
            }
        });
        let (mut heard_to, mut ended) = (Timestamp::EPOCH, None);
        let mut take = |heard_to: &mut Timestamp| {
            receiver.next(|at, lost, pushed| {
                if let Some((from, to)) = lost {
                    assert_eq!((from, to), (*heard_to, at), "what is missing is declared");
                }
                let Pushed::Pcm { parts, .. } = pushed else { panic!("nothing is muted") };
                assert!(lost.is_some() || at == *heard_to, "in order");
                let samples: Vec<f32> = parts.concat();
                assert_eq!(samples.len(), FRAMES);
                let first = at.nanos_since(Timestamp::EPOCH) as f64 / length as f64 / 8.0 + 0.125;
                assert!(samples.iter().all(|sample| f64::from(*sample) == first), "whole");
                *heard_to = at.plus_nanos(length);
            })
        };
        while ended.is_none() {
            let ready = shared.taken.load(Ordering::Acquire);
            if let Ok(Message::End { lost, .. }) = told.try_recv() {
                ended = Some(lost);
            }
            // Whoever sees that a push was taken finds it.
            let heard = std::iter::from_fn(|| take(&mut heard_to)).count() as u64;
            assert!(heard > 0 || ready <= seen(&heard_to, length));
            thread::yield_now();
        }
        while take(&mut heard_to).is_some() {}
        let to = ended.flatten().map_or(heard_to, |(from, to)| {
            assert_eq!(from, heard_to);
            to
        });
        assert_eq!(to, Timestamp::from_nanos(5 * length), "heard or declared lost");
        pusher.join().unwrap();
    });
}

fn seen(heard_to: &Timestamp, length: i64) -> u64 {
    (heard_to.nanos_since(Timestamp::EPOCH) / length).unsigned_abs()
}

/// Speech, and as much silence as ends it.
fn speech() -> Vec<i16> {
    sound(16_000, 2_500, &[(200, 1_500)])
}

/// What a host hears of its tracks, from a thread that listens until the engine is gone.
fn listen(engine: &Engine) -> thread::JoinHandle<Vec<EngineEvent>> {
    let events = engine.subscribe();
    thread::spawn(move || std::iter::from_fn(|| events.recv()).collect())
}

fn config() -> EngineConfig {
    EngineConfig { workers: two(), pipelines: two(), on_thread_start: None }
}

/// Each track ended once, with all of its audio accounted for.
fn assert_all_ended(events: &[EngineEvent], tracks: u64, samples: u64) {
    let mut ended = BTreeMap::<TrackId, &TrackReport>::new();
    for event in events {
        match event {
            EngineEvent::Ended { track, report } => assert!(ended.insert(*track, report).is_none(), "ended twice"),
            EngineEvent::Caption { track, .. } => assert!(!ended.contains_key(track), "said after the end"),
            _ => {}
        }
    }
    assert!(ended.keys().copied().eq((0..tracks).map(TrackId)), "{ended:?}");
    for report in ended.values() {
        assert_eq!(report.failure, None);
        assert_eq!(report.accounting.total(), samples);
    }
}

#[test]
fn tracks_that_speak_and_leave_are_captioned_and_nothing_is_left_behind() {
    explore(200, || {
        let living = Arc::new(AtomicUsize::new(0));
        let count = living.clone();
        let model = Arc::new(move |_: &Idle| {
            let alive = Alive::new(&count);
            ScriptedDecoder::new(move |job: &DecodeJob| {
                let _ = &alive;
                yes(job)
            })
        });
        let engine = Engine::start(config(), model).unwrap();
        let listener = listen(&engine);
        let samples = speech();
        let length = samples.len() as u64;
        let samples = Arc::<[i16]>::from(samples);
        let speakers: Vec<_> = (0..2)
            .map(|_| {
                let (mut sender, _) = engine.add_track(TrackConfig::new("alice")).unwrap();
                let samples = samples.clone();
                thread::spawn(move || {
                    for (i, part) in samples.chunks(8_000).enumerate() {
                        let at = Timestamp::from_nanos(i as i64 * 500_000_000);
                        sender.push(at, Pcm::mono(16_000, part).unwrap()).unwrap();
                    }
                })
            })
            .collect();
        speakers.into_iter().for_each(|thread| thread.join().unwrap());
        engine.shutdown(Duration::from_secs(60));
        assert_eq!(living.load(Ordering::SeqCst), 0, "a worker has a decoder yet");
        let events = listener.join().unwrap();
        assert_all_ended(&events, 2, length);
        for track in 0..2 {
            let finals = events.iter().filter(|event| {
                matches!(event, EngineEvent::Caption { track: TrackId(of), event: CaptionEvent::Final { .. }, .. } if *of == track)
            });
            assert_eq!(finals.count(), 1, "of track {track}: {events:?}");
        }
    });
}

#[test]
fn a_shutdown_is_over_when_its_patience_is_though_decoders_hang() {
    explore(100, || {
        let begun = Arc::new(AtomicUsize::new(0));
        let hanging = begun.clone();
        let engine = Engine::start(config(), Arc::new(move |_: &Idle| Endless(hanging.clone()))).unwrap();
        let listener = listen(&engine);
        let samples = speech();
        let (mut sender, track) = engine.add_track(TrackConfig::new("alice")).unwrap();
        sender.push(Timestamp::EPOCH, Pcm::mono(16_000, &samples[..]).unwrap()).unwrap();
        engine.mark(track, 7).unwrap();
        let start: Instant = now();
        let reports = engine.shutdown(Duration::from_millis(100));
        assert!(now().duration_since(start) < Duration::from_secs(1));
        assert_eq!(reports.len(), 1);
        assert_eq!(sender.push(Timestamp::EPOCH, Pcm::mono(16_000, &samples[..]).unwrap()), Err(PushError::Ended));
        let events = listener.join().unwrap();
        assert_all_ended(&events, 1, samples.len() as u64);
        assert_eq!(events.iter().filter(|event| matches!(event, EngineEvent::Marked { mark: 7, .. })).count(), 1);
        let abandoned = events.iter().any(|event| {
            matches!(event, EngineEvent::Caption { event: CaptionEvent::Gap { reason: GapReason::Abandoned, .. }, .. })
        });
        assert!(abandoned, "{} were begun: {events:?}", begun.load(Ordering::SeqCst));
    });
}
