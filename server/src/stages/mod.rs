//! The tracks of all calls: one track of the engine a participant.
//!
//! In: who joins and leaves, and how a call is to be heard. Out: what the engine says of the tracks, as inputs of their calls, to
//! a [`Listener`].
//!
//! A participant's track lasts as long as the session: who comes back goes on with it. One thread, `cuewire-captions`, hands on
//! what the engine says; it waits for nobody.

use std::collections::{BTreeMap, BTreeSet, HashMap, VecDeque};
use std::io;
use std::sync::{Arc, Mutex, MutexGuard, OnceLock, PoisonError, Weak};
use std::thread::JoinHandle;
use std::time::{Duration, Instant};

use cuewire::caption::CaptionEvent;
use cuewire::engine::{
    Engine, EngineError, EngineEvent, Ledger, Model, OverloadLevel, Subscription, TrackConfig, TrackId,
};
use tokio::sync::oneshot;

use crate::call::settings::Recognition;
use crate::call::{Caption, Cid, Input, Interim};
use crate::clock::new_id;
use crate::limits::Limits;
use crate::wire::error::ApiError;

mod line;
mod room;
mod said;
mod seat;

pub(crate) use line::Line;
use room::Room;
pub(crate) use said::Missed;
use said::{Said, config_of, is_missed, said};
pub(crate) use seat::{Closed, Seated, Taken};
use seat::{Marked, Seat};

/// Decodes of a call's tracks that fail one behind the other before its processes have failed.
const MOST_FAILURES: u32 = 3;
/// Behind a span of speech without a caption the next caption, or the next such span, comes within this: else nobody speaks.
const NEXT_CAPTION: Duration = Duration::from_secs(15);

/// Who is told of calls what the engine says of their tracks.
pub(crate) trait Listener: Send + Sync {
    /// A caption is final, and opened under this mark.
    fn heard(self: Arc<Self>, cid: Cid, caption: Caption, mark: u64, ledger: Option<Ledger>);

    /// Something is known of a caption that is still open.
    fn interim(self: Arc<Self>, cid: Cid, mark: u64, event: Interim);

    /// What somebody said was given up.
    fn missed(self: Arc<Self>, cid: Cid, missed: Missed);

    /// A participant's connection is closed, and their last caption was told.
    fn left(self: Arc<Self>, cid: Cid, user_id: String);

    /// Every caption is told that opened before a mark; or recognition has failed.
    fn tell(self: Arc<Self>, cid: Cid, input: Input);
}

/// The tracks of all calls.
pub(crate) struct Stages {
    engine: Mutex<Option<Arc<Engine>>>,
    model: Arc<dyn Model>,
    state: Mutex<State>,
    room: Room,
    thread: Mutex<Option<JoinHandle<()>>>,
    listener: OnceLock<Weak<dyn Listener>>,
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

impl Stages {
    /// Over an engine and the model that it was started with.
    pub(crate) fn new(engine: Engine, model: Arc<dyn Model>, limits: &Limits) -> Self {
        let engine = Mutex::new(Some(Arc::new(engine)));
        Self {
            engine,
            model,
            state: Mutex::default(),
            room: Room::new(limits),
            thread: Mutex::default(),
            listener: OnceLock::new(),
        }
    }

    /// Whoever is told; once, before all else.
    pub(crate) fn listen(&self, listener: Weak<dyn Listener>) {
        // There is one.
        let _ = self.listener.set(listener);
    }

    /// Who is told, as long as it is there.
    fn listener(&self) -> Option<Arc<dyn Listener>> {
        self.listener.get()?.upgrade()
    }

    fn tell(&self, cid: &Cid, input: Input) {
        if let Some(listener) = self.listener() {
            listener.tell(cid.clone(), input);
        }
    }

    fn left(&self, cid: &Cid, user_id: &str) {
        if let Some(listener) = self.listener() {
            listener.left(cid.clone(), user_id.to_string());
        }
    }

    /// Starts handing on what the engine says.
    ///
    /// # Errors
    /// Where the system starts no more threads.
    pub(crate) fn hand_on(self: &Arc<Self>) -> io::Result<()> {
        let Some(engine) = self.engine() else { return Ok(()) };
        let (events, stages) = (engine.subscribe(), Arc::downgrade(self));
        let thread = std::thread::Builder::new().name("cuewire-captions".into());
        let thread = thread.spawn(move || hand_on(&events, &stages))?;
        *self.thread.lock().unwrap_or_else(PoisonError::into_inner) = Some(thread);
        Ok(())
    }

    /// Finalises what is open, but for no longer than `patience`, and hands it on.
    pub(crate) fn shutdown(&self, patience: Duration) {
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
    pub(crate) fn check(&self, recognition: &Recognition) -> Result<(), String> {
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
    pub(crate) fn is_overloaded(&self) -> bool {
        self.engine().is_some_and(|engine| engine.overload() > OverloadLevel::None)
    }

    /// Whether there is room for a participant: who has a seat keeps it.
    ///
    /// # Errors
    /// [`Code::Full`](crate::wire::error::Code::Full).
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
    pub(crate) fn hear(&self, cid: &Cid, recognition: Option<Recognition>, mark: u64) {
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
                self.tell(cid, Input::Passed { mark });
            } else {
                stage.pending.insert(mark, pending);
            }
        }
        stage.configure(&engine);
    }

    /// Whether interims of a call are made.
    pub(crate) fn set_interims(&self, cid: &Cid, are_wanted: impl FnOnce() -> bool) {
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
    pub(crate) fn seat(&self, cid: &Cid, session_id: &str, user_id: &str) -> Result<Option<Seated>, EngineError> {
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
    fn give_back(&self, cid: &Cid, user_id: &str, connection: u64) {
        let mut state = self.lock();
        let State { calls, tracks } = &mut *state;
        let Some(stage) = calls.get_mut(cid) else { return };
        // Of two joins that came to nothing together, the last one has it.
        let Some(seat) = stage.seats.get_mut(user_id).filter(|seat| seat.connection == connection) else { return };
        if let Some(session_id) = seat.kept.clone() {
            seat.session_id = session_id;
            drop(state);
            return self.leave(cid, user_id, connection);
        }
        let track = seat.track;
        // Without its sender the track ends.
        stage.seats.remove(user_id);
        tracks.remove(&track);
        stage.passed(track, |_| true, |input| self.tell(cid, input));
        if stage.seats.is_empty() && !stage.interims && stage.recognition.is_none() {
            calls.remove(cid);
        }
    }

    /// A participant's connection is closed: they have left once their last caption is there, unless they are back by then.
    pub(crate) fn leave(&self, cid: &Cid, user_id: &str, connection: u64) {
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
            self.left(cid, user_id);
        }
    }

    /// Whether a participant has a connection.
    pub(crate) fn is_here(&self, cid: &Cid, user_id: &str) -> bool {
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
    pub(crate) fn with_track(&self, track: TrackId, act: impl FnOnce(&Engine, TrackId) -> Result<(), EngineError>) {
        if let Some(engine) = self.engine() {
            // A track that has ended has nobody who would hear of it.
            let _ = act(&engine, track);
        }
    }

    /// Closes the connection of somebody who may speak no longer.
    pub(crate) fn silence(&self, cid: &Cid, user_id: &str) {
        let mut state = self.lock();
        let seat = state.calls.get_mut(cid).and_then(|stage| stage.seats.get_mut(user_id));
        if let Some(close) = seat.and_then(|seat| seat.close.take()) {
            // It is closed already, then.
            let _ = close.send(Closed::AccessLost);
        }
    }

    /// Closes a participant's connection.
    pub(crate) fn disconnect(&self, cid: &Cid, user_id: &str) {
        let mut state = self.lock();
        if let Some(seat) = state.calls.get_mut(cid).and_then(|stage| stage.seats.get_mut(user_id)) {
            // Dropping it tells the connection.
            seat.close = None;
        }
    }

    /// A call's session is over: the tracks of those who are in no other one end.
    pub(crate) fn end(&self, cid: &Cid, session_id: &str) {
        let mut state = self.lock();
        let State { calls, tracks } = &mut *state;
        let Some(stage) = calls.get_mut(cid) else { return };
        let (over, here) =
            std::mem::take(&mut stage.seats).into_iter().partition(|(_, seat)| seat.session_id == session_id);
        stage.seats = here;
        let over: BTreeMap<String, Seat> = over;
        for seat in over.values() {
            tracks.remove(&seat.track);
            stage.passed(seat.track, |_| true, |input| self.tell(cid, input));
        }
        if stage.seats.is_empty() && !stage.interims {
            calls.remove(cid);
        }
    }

    fn handle(&self, listener: Arc<dyn Listener>, event: EngineEvent) {
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
                    Some(Said::Caption(caption)) => listener.heard(cid, caption, mark, ledger),
                    Some(Said::Interim(interim)) => listener.interim(cid, mark, interim),
                    Some(Said::Missed(missed)) => listener.missed(cid, missed),
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
                    Some(Marked::Hear(mark)) => {
                        stage.passed(track, |of| of == mark, |input| listener.clone().tell(cid.clone(), input));
                    }
                    Some(Marked::Left(connection)) if connection == seat.connection => {
                        listener.left(cid.clone(), user_id.clone());
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
                stage.passed(track, |_| true, |input| listener.clone().tell(cid.clone(), input));
                listener.left(cid, user_id);
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
                    listener.tell(cid.clone(), Input::Failed { error: error.to_string() });
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
    fn passed(&mut self, track: TrackId, is_passed: impl Fn(u64) -> bool, mut tell: impl FnMut(Input)) {
        self.pending.retain(|mark, tracks| {
            if is_passed(*mark) && tracks.remove(&track) && tracks.is_empty() {
                tell(Input::Passed { mark: *mark });
            }
            !tracks.is_empty()
        });
    }
}

fn hand_on(events: &Subscription, stages: &Weak<Stages>) {
    while let Some(event) = events.recv() {
        let Some((stages, listener)) = stages.upgrade().and_then(|stages| stages.listener().map(|it| (stages, it)))
        else {
            return;
        };
        stages.handle(listener, event);
    }
}
