//! From participants' audio to captions: one track of the engine a participant.
//!
//! In: who joins and leaves, and how a call is to be heard. Out: what the engine says of the tracks, as inputs of their calls.
//!
//! A participant's track lasts as long as the session: who comes back goes on with it. One thread, `cuewire-captions`, hands on
//! what the engine says; it waits for nobody.

use std::collections::{BTreeMap, BTreeSet, HashMap, VecDeque};
use std::io;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError, Weak};
use std::thread::JoinHandle;
use std::time::{Duration, Instant};

use cuewire::caption::{CaptionEvent, CaptionId, GapReason};
use cuewire::config::{Config, InterimIntervalMs, Language};
use cuewire::engine::{Engine, EngineError, EngineEvent, Model, OverloadLevel, Subscription, TrackConfig, TrackId};
use tokio::sync::oneshot;

use crate::api::error::ApiError;
use crate::call::settings::Recognition;
use crate::call::{Caption, Cid, Input};
use crate::host::{Host, Interim, Missed, new_id};
use crate::limits::Limits;

pub mod audio;
mod room;
pub mod rtp;

use audio::Line;
use room::Room;

/// Decodes of a call's tracks that fail one behind the other before its processes have failed.
const MOST_FAILURES: u32 = 3;
/// Behind a span of speech without a caption the next caption, or the next such span, comes within this: else nobody speaks.
const NEXT_CAPTION: Duration = Duration::from_secs(15);

/// The tracks of all calls.
pub struct Stages {
    engine: Mutex<Option<Arc<Engine>>>,
    model: Arc<dyn Model>,
    state: Mutex<State>,
    room: Room,
    thread: Mutex<Option<JoinHandle<()>>>,
}

#[derive(Default)]
struct State {
    calls: HashMap<Cid, Stage>,
    tracks: HashMap<TrackId, (Cid, String)>,
}

/// One call's tracks.
#[derive(Default)]
struct Stage {
    recognition: Option<Recognition>,
    mark: u64,
    interims: bool,
    seats: BTreeMap<String, Seat>,
    /// Marks, and the tracks of which captions are open that opened before.
    pending: BTreeMap<u64, BTreeSet<TrackId>>,
    failures: u32,
}

struct Seat {
    track: TrackId,
    /// In which session they were last.
    session_id: String,
    /// The same, as it is on disk; none before the first join is.
    kept: Option<String>,
    /// Names the track in the ids of its captions.
    name: String,
    line: Arc<Mutex<Line>>,
    /// Counts the connections.
    connection: u64,
    /// Closes the connection, where there is one.
    close: Option<oneshot::Sender<Closed>>,
    /// What was marked, in the order in which the engine will say so.
    marked: VecDeque<Marked>,
    /// Since when all that was said was given up, and when the last of it was.
    missed: Option<(Instant, Instant)>,
}

enum Marked {
    /// How the call is heard from here on.
    Hear(u64),
    /// The connection with this number is closed.
    Left(u64),
}

/// A participant's connection, as the one who reads it needs it.
pub struct Seated {
    /// Where audio goes.
    pub line: Arc<Mutex<Line>>,
    /// The track.
    pub track: TrackId,
    /// Which of the participant's connections it is.
    pub connection: u64,
    /// Told, or gone, when it is to be closed.
    pub closed: oneshot::Receiver<Closed>,
}

/// A seat that was taken by a join which is not on disk yet. Where it never is, this is dropped, and the seat given back.
pub(crate) struct Taken {
    host: Arc<Host>,
    cid: Cid,
    user_id: String,
    connection: u64,
    is_kept: bool,
}

impl Taken {
    pub(crate) fn new(host: Arc<Host>, cid: Cid, user_id: String, connection: u64) -> Self {
        Self { host, cid, user_id, connection, is_kept: false }
    }

    /// The join is on disk.
    pub(crate) fn keep(mut self) {
        self.is_kept = true;
        let mut state = self.host.stages.lock();
        if let Some(seat) = state.calls.get_mut(&self.cid).and_then(|stage| stage.seats.get_mut(&self.user_id)) {
            seat.kept = Some(seat.session_id.clone());
        }
    }
}

impl Drop for Taken {
    fn drop(&mut self) {
        if !self.is_kept {
            self.host.stages.give_back(&self.host, &self.cid, &self.user_id, self.connection);
        }
    }
}

/// Why a connection is closed, where it is not because the place was taken or the call has ended.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Closed {
    /// Who speaks may do so no longer.
    AccessLost,
}

impl Stages {
    /// Over an engine and the model that it was started with.
    #[must_use]
    pub fn new(engine: Engine, model: Arc<dyn Model>, limits: &Limits) -> Self {
        let engine = Mutex::new(Some(Arc::new(engine)));
        Self { engine, model, state: Mutex::default(), room: Room::new(limits), thread: Mutex::default() }
    }

    /// Starts handing on what the engine says.
    ///
    /// # Errors
    /// Where the system starts no more threads.
    pub fn hand_on(&self, host: &Arc<Host>) -> io::Result<()> {
        let Some(engine) = self.engine() else { return Ok(()) };
        let (events, host) = (engine.subscribe(), Arc::downgrade(host));
        let thread = std::thread::Builder::new().name("cuewire-captions".into());
        let thread = thread.spawn(move || hand_on(&events, &host))?;
        *self.thread.lock().unwrap_or_else(PoisonError::into_inner) = Some(thread);
        Ok(())
    }

    /// Finalises what is open, but for no longer than `patience`, and hands it on.
    pub fn shutdown(&self, patience: Duration) {
        let engine = self.engine.lock().unwrap_or_else(PoisonError::into_inner).take();
        if let Some(mut engine) = engine {
            // Others have it for a moment.
            let engine = loop {
                match Arc::try_unwrap(engine) {
                    Ok(engine) => break engine,
                    Err(shared) => engine = shared,
                }
                std::thread::sleep(Duration::from_millis(1));
            };
            engine.shutdown(patience);
        }
        if let Some(thread) = self.thread.lock().unwrap_or_else(PoisonError::into_inner).take() {
            // A panic there was its own.
            let _ = thread.join();
        }
    }

    fn engine(&self) -> Option<Arc<Engine>> {
        self.engine.lock().unwrap_or_else(PoisonError::into_inner).clone()
    }

    fn lock(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Whether speech can be recognised like this.
    ///
    /// # Errors
    /// What the model cannot do, as a sentence.
    pub fn check(&self, recognition: &Recognition) -> Result<(), String> {
        self.model.check(&config_of(Some(recognition), false))
    }

    /// Participants of whom speech was heard, of which nothing final was said or all was given up, and for how long: those where
    /// that is `least` or more.
    pub(crate) fn stalled(&self, least: Duration) -> Vec<(Cid, String, Duration)> {
        let Some(engine) = self.engine() else { return Vec::new() };
        let state = self.lock();
        let seats = state.tracks.iter().filter_map(|(track, (cid, user_id))| {
            let unfinished = engine.unfinished_for(*track).unwrap_or_default();
            let missed = state.calls.get(cid).and_then(|stage| stage.seats.get(user_id)?.missed);
            let missed = missed.filter(|(_, last)| last.elapsed() < NEXT_CAPTION);
            let lasts = missed.map_or(unfinished, |(since, _)| since.elapsed().max(unfinished));
            (lasts >= least).then(|| (cid.clone(), user_id.clone(), lasts))
        });
        seats.collect()
    }

    /// Whether the engine does without anything at present.
    #[must_use]
    pub fn is_overloaded(&self) -> bool {
        self.engine().is_some_and(|engine| engine.overload() > OverloadLevel::None)
    }

    /// Whether there is room for a participant: who has a seat keeps it.
    ///
    /// # Errors
    /// [`Code::Full`](crate::api::error::Code::Full).
    pub(crate) fn check_room(&self, cid: &Cid, user_id: &str) -> Result<(), ApiError> {
        let Some(engine) = self.engine() else { return Ok(()) };
        let state = self.lock();
        match state.calls.get(cid).is_some_and(|stage| stage.seats.contains_key(user_id)) {
            true => Ok(()),
            false => self.room.check(&engine, state.tracks.len()),
        }
    }

    /// Looks how much the engine has to do: with each tick.
    pub(crate) fn look(&self) {
        if let Some(engine) = self.engine() {
            self.room.look(&engine, self.lock().tracks.len(), std::time::Instant::now());
        }
    }

    /// How a call is heard from now on.
    pub fn hear(&self, host: &Arc<Host>, cid: &Cid, recognition: Option<Recognition>, mark: u64) {
        let Some(engine) = self.engine() else { return };
        let mut state = self.lock();
        let stage = state.calls.entry(cid.clone()).or_default();
        let is_marked = stage.mark != mark;
        (stage.recognition, stage.mark) = (recognition, mark);
        if is_marked {
            let mut pending = BTreeSet::new();
            for seat in stage.seats.values_mut() {
                if engine.mark(seat.track, mark).is_ok() {
                    seat.marked.push_back(Marked::Hear(mark));
                    pending.insert(seat.track);
                }
            }
            if pending.is_empty() {
                host.tell(cid.clone(), Input::Passed { mark });
            } else {
                stage.pending.insert(mark, pending);
            }
        }
        stage.configure(&engine);
    }

    /// Whether interims of a call are made.
    pub fn set_interims(&self, cid: &Cid, are_wanted: impl FnOnce() -> bool) {
        let Some(engine) = self.engine() else { return };
        let mut state = self.lock();
        // Asked for here, so that of two changes at once the last one counts.
        let interims = are_wanted();
        let stage = state.calls.entry(cid.clone()).or_default();
        if stage.interims != interims {
            stage.interims = interims;
            stage.configure(&engine);
        }
        if stage.seats.is_empty() && !interims && stage.recognition.is_none() {
            state.calls.remove(cid);
        }
    }

    /// A participant is there: a second connection takes the place of the first.
    ///
    /// # Errors
    /// [`EngineError`], and `None` where the server is shutting down.
    pub fn seat(&self, cid: &Cid, session_id: &str, user_id: &str) -> Result<Option<Seated>, EngineError> {
        let Some(engine) = self.engine() else { return Ok(None) };
        let mut state = self.lock();
        let State { calls, tracks } = &mut *state;
        let stage = calls.entry(cid.clone()).or_default();
        let (close, closed) = oneshot::channel();
        if let Some(seat) = stage.seats.get_mut(user_id) {
            seat.connection += 1;
            seat.session_id = session_id.to_string();
            // Who was muted before is not so by this. A track that has ended is in nobody's ear.
            let _ = engine.mute(seat.track, false);
            // Dropping the old one tells its connection.
            seat.close = Some(close);
            let (line, track, connection) = (seat.line.clone(), seat.track, seat.connection);
            return Ok(Some(Seated { line, track, connection, closed }));
        }
        let mut config = TrackConfig::new(user_id);
        config.config = config_of(stage.recognition.as_ref(), stage.interims);
        let (sender, track) = engine.add_track(config)?;
        let line = Arc::new(Mutex::new(Line::new(sender)));
        let mut marked = VecDeque::new();
        // It has no captions before its first mark, and whoever waits for that one does not wait for this track.
        if engine.mark(track, stage.mark).is_ok() {
            marked.push_back(Marked::Hear(stage.mark));
        }
        let session_id = session_id.to_string();
        let seat = Seat {
            track,
            session_id,
            kept: None,
            name: new_id(),
            line: line.clone(),
            connection: 0,
            close: Some(close),
            marked,
            missed: None,
        };
        stage.seats.insert(user_id.to_string(), seat);
        tracks.insert(track, (cid.clone(), user_id.to_string()));
        Ok(Some(Seated { line, track, connection: 0, closed }))
    }

    /// A join came to nothing: a seat that was there before is that of somebody who has left, and a new one is none.
    fn give_back(&self, host: &Arc<Host>, cid: &Cid, user_id: &str, connection: u64) {
        let mut state = self.lock();
        let State { calls, tracks } = &mut *state;
        let Some(stage) = calls.get_mut(cid) else { return };
        // Of two joins that came to nothing together, the last one has it.
        let Some(seat) = stage.seats.get_mut(user_id).filter(|seat| seat.connection == connection) else { return };
        if let Some(session_id) = seat.kept.clone() {
            seat.session_id = session_id;
            drop(state);
            return self.leave(host, cid, user_id, connection);
        }
        let track = seat.track;
        // Without its sender the track ends.
        stage.seats.remove(user_id);
        tracks.remove(&track);
        stage.passed(host, cid, track, |_| true);
        if stage.seats.is_empty() && !stage.interims && stage.recognition.is_none() {
            calls.remove(cid);
        }
    }

    /// A participant's connection is closed: they have left once their last caption is there, unless they are back by then.
    pub fn leave(&self, host: &Arc<Host>, cid: &Cid, user_id: &str, connection: u64) {
        // Where the server is shutting down, they may return to the next one.
        let Some(engine) = self.engine() else { return };
        let mut state = self.lock();
        let seat =
            state.calls.get_mut(cid).and_then(|stage| stage.seats.get_mut(user_id).map(|seat| (stage.mark, seat)));
        let Some((mark, seat)) = seat_of(seat, connection) else { return };
        seat.close = None;
        // A track that has ended is in nobody's ear.
        let _ = engine.mute(seat.track, false);
        if engine.flush(seat.track).and_then(|()| engine.mark(seat.track, mark)).is_ok() {
            seat.marked.push_back(Marked::Left(connection));
        } else {
            host.left(cid.clone(), user_id.to_string());
        }
    }

    /// Whether a participant has a connection.
    #[must_use]
    pub fn is_here(&self, cid: &Cid, user_id: &str) -> bool {
        let state = self.lock();
        let seat = state.calls.get(cid).and_then(|stage| stage.seats.get(user_id));
        seat.is_some_and(|seat| seat.close.is_some())
    }

    /// Participants who have a connection.
    pub(crate) fn participants(&self) -> usize {
        let state = self.lock();
        let seats = state.calls.values().flat_map(|stage| stage.seats.values());
        seats.filter(|seat| seat.close.is_some()).count()
    }

    /// Does something with the engine and a participant's track.
    pub fn with_track(&self, track: TrackId, act: impl FnOnce(&Engine, TrackId) -> Result<(), EngineError>) {
        if let Some(engine) = self.engine() {
            // A track that has ended has nobody who would hear of it.
            let _ = act(&engine, track);
        }
    }

    /// Closes the connection of somebody who may speak no longer.
    pub fn silence(&self, cid: &Cid, user_id: &str) {
        let mut state = self.lock();
        let seat = state.calls.get_mut(cid).and_then(|stage| stage.seats.get_mut(user_id));
        if let Some(close) = seat.and_then(|seat| seat.close.take()) {
            // It is closed already, then.
            let _ = close.send(Closed::AccessLost);
        }
    }

    /// Closes a participant's connection.
    pub fn disconnect(&self, cid: &Cid, user_id: &str) {
        let mut state = self.lock();
        if let Some(seat) = state.calls.get_mut(cid).and_then(|stage| stage.seats.get_mut(user_id)) {
            // Dropping it tells the connection.
            seat.close = None;
        }
    }

    /// A call's session is over: the tracks of those who are in no other one end.
    pub fn end(&self, host: &Arc<Host>, cid: &Cid, session_id: &str) {
        let mut state = self.lock();
        let State { calls, tracks } = &mut *state;
        let Some(stage) = calls.get_mut(cid) else { return };
        let (over, here) =
            std::mem::take(&mut stage.seats).into_iter().partition(|(_, seat)| seat.session_id == session_id);
        stage.seats = here;
        let over: BTreeMap<String, Seat> = over;
        for seat in over.values() {
            tracks.remove(&seat.track);
            stage.passed(host, cid, seat.track, |_| true);
        }
        if stage.seats.is_empty() && !stage.interims {
            calls.remove(cid);
        }
    }

    fn handle(&self, host: &Arc<Host>, event: EngineEvent) {
        match event {
            EngineEvent::Caption { track, event, ledger, mark } => {
                let mut state = self.lock();
                let State { calls, tracks } = &mut *state;
                let Some((cid, user_id)) = tracks.get(&track) else { return };
                let Some(stage) = calls.get_mut(cid) else { return };
                let Some(seat) = stage.seats.get_mut(user_id) else { return };
                match &event {
                    CaptionEvent::Final { .. } | CaptionEvent::Suppressed { .. } => {
                        (stage.failures, seat.missed) = (0, None);
                    }
                    CaptionEvent::Gap { from, to, reason, .. } if is_missed(*reason) => {
                        let now = Instant::now();
                        let lasted = Duration::from_nanos(u64::try_from(to.nanos_since(*from)).unwrap_or(0));
                        let known = seat.missed.filter(|(_, last)| last.elapsed() < NEXT_CAPTION);
                        seat.missed =
                            Some((known.map_or(now.checked_sub(lasted).unwrap_or(now), |(since, _)| since), now));
                    }
                    _ => {}
                }
                let (name, cid) = (seat.name.clone(), cid.clone());
                drop(state);
                match said(&name, event) {
                    Some(Said::Caption(caption)) => host.heard(cid, caption, mark, ledger),
                    Some(Said::Interim(interim)) => host.interim(cid, mark, interim),
                    Some(Said::Missed(missed)) => host.missed(cid, missed),
                    None => {}
                }
            }
            EngineEvent::Marked { track, .. } => {
                let mut state = self.lock();
                let State { calls, tracks } = &mut *state;
                let Some((cid, user_id)) = tracks.get(&track) else { return };
                let Some(stage) = calls.get_mut(cid) else { return };
                let Some(seat) = stage.seats.get_mut(user_id) else { return };
                match seat.marked.pop_front() {
                    Some(Marked::Hear(mark)) => stage.passed(host, cid, track, |of| of == mark),
                    Some(Marked::Left(connection)) if connection == seat.connection => {
                        host.left(cid.clone(), user_id.clone());
                    }
                    Some(Marked::Left(_)) | None => {}
                }
            }
            EngineEvent::Ended { track, report } => {
                // Tracks that end with the server are those of participants who may return.
                if self.engine().is_none() {
                    return;
                }
                let mut state = self.lock();
                // Where it ended with its session, nobody knows it any more.
                let Some((cid, user_id)) = state.tracks.remove(&track) else { return };
                if let Some(failure) = report.failure {
                    tracing::error!("{track} failed: {failure}");
                }
                let Some(stage) = state.calls.get_mut(&cid) else { return };
                // Dropping the seat closes the connection.
                stage.seats.remove(&user_id);
                stage.passed(host, &cid, track, |_| true);
                host.left(cid, user_id);
            }
            EngineEvent::Failed { track, error } => {
                tracing::error!("{track}: a decode failed: {error}");
                let mut state = self.lock();
                let State { calls, tracks } = &mut *state;
                let Some((cid, stage)) =
                    tracks.get(&track).and_then(|(cid, _)| calls.get_mut(cid).map(|stage| (cid, stage)))
                else {
                    return;
                };
                stage.failures += 1;
                if stage.failures == MOST_FAILURES {
                    stage.failures = 0;
                    host.tell(cid.clone(), Input::Failed { error: error.to_string() });
                }
            }
            EngineEvent::Refused { track, error } => tracing::warn!("{track}: {error}"),
            EngineEvent::Overload { level } => tracing::warn!("overload: {level:?}"),
            EngineEvent::Missed { events } => tracing::error!("{events} events of the engine were missed"),
            _ => {}
        }
    }
}

/// The participant's seat, if this connection is theirs.
fn seat_of(seat: Option<(u64, &mut Seat)>, connection: u64) -> Option<(u64, &mut Seat)> {
    seat.filter(|(_, seat)| seat.connection == connection)
}

impl Stage {
    fn configure(&self, engine: &Engine) {
        for seat in self.seats.values() {
            // It was checked when it was written; and a track that has ended needs none.
            let _ = engine.reconfigure(seat.track, config_of(self.recognition.as_ref(), self.interims));
        }
    }

    /// Nothing of a track is open any more that opened before such a mark.
    fn passed(&mut self, host: &Arc<Host>, cid: &Cid, track: TrackId, is_passed: impl Fn(u64) -> bool) {
        self.pending.retain(|mark, tracks| {
            if is_passed(*mark) && tracks.remove(&track) && tracks.is_empty() {
                host.tell(cid.clone(), Input::Passed { mark: *mark });
            }
            !tracks.is_empty()
        });
    }
}

/// How a track is heard.
fn config_of(recognition: Option<&Recognition>, interims: bool) -> Config {
    let mut config = Config::default();
    config.early_finals = true;
    config.paused = recognition.is_none();
    if let Some(Recognition { language, speech_segment_config, translate }) = recognition {
        config.language = *language;
        config.speech_segment_config = *speech_segment_config;
        config.translations = *translate;
    }
    if !interims {
        config.interim_interval_ms = InterimIntervalMs::try_from(0).unwrap_or_default();
    }
    config
}

enum Said {
    Caption(Caption),
    Interim(Interim),
    Missed(Missed),
}

/// Whether a gap is of what was said, and not of what was not sent.
fn is_missed(reason: GapReason) -> bool {
    matches!(reason, GapReason::DecodeFailed | GapReason::Overload | GapReason::Abandoned)
}

/// What a track says, as its call has it.
fn said(name: &str, event: CaptionEvent) -> Option<Said> {
    let id_of = |id: CaptionId| format!("{name}-{}", id.0);
    let caption = |id, (start_time, end_time), speaker_id: Arc<str>, language: Language, text, translated| Caption {
        id,
        speaker_id: speaker_id.to_string(),
        start_time,
        end_time,
        text,
        language: language.to_string(),
        translated,
        service: None,
    };
    Some(match event {
        CaptionEvent::Final { id, start_time, end_time, speaker_id, language, text, translated, .. } => {
            Said::Caption(caption(id_of(id), (start_time, end_time), speaker_id, language, text, translated))
        }
        CaptionEvent::Translation { id, start_time, end_time, speaker_id, language, text, .. } => {
            let id = format!("{}-{language}", id_of(id));
            // Clients take two captions with one speaker and one beginning for the same.
            Said::Caption(caption(id, (start_time.plus_nanos(1), end_time), speaker_id, language, text, true))
        }
        CaptionEvent::Interim {
            id,
            revision,
            start_time,
            end_time,
            speaker_id,
            language,
            text,
            stable_chars,
            translated,
            ..
        } => {
            let caption = caption(id_of(id), (start_time, end_time), speaker_id, language, text, translated);
            Said::Interim(Interim::Text { caption, revision, stable_chars })
        }
        CaptionEvent::Retracted { id, reason, .. } => {
            let reason = serde_json::to_value(reason).ok()?.as_str()?.to_string();
            Said::Interim(Interim::Retracted { id: id_of(id), reason })
        }
        CaptionEvent::Gap { from, to, speaker_id, reason } if is_missed(reason) => {
            let reason = serde_json::to_value(reason).ok()?.as_str()?.to_string();
            Said::Missed(Missed { speaker_id: speaker_id.to_string(), start_time: from, end_time: to, reason })
        }
        _ => return None,
    })
}

fn hand_on(events: &Subscription, host: &Weak<Host>) {
    while let Some(event) = events.recv() {
        let Some(host) = host.upgrade() else { return };
        host.stages.handle(&host, event);
    }
}
