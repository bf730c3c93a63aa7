//! What one hook is to be told next.
//!
//! In: events as they are committed, or from disk, and what became of attempts. Out: the next event to deliver, or the next call
//! of which events are to be read.
//!
//! Within a call one event goes behind the other; calls hold up no one but themselves. Little is held in memory: what exceeds it
//! is read again from disk when its turn comes. No clock is read: the time is an argument.

use std::collections::{BTreeSet, HashMap, VecDeque};
use std::sync::Arc;
use std::time::Instant;

use crate::call::Cid;
use crate::retry::backoff;
use crate::store::Outgoing;

/// Events of one call that are held in memory, and read at a time.
pub(super) const MOST_OF_A_CALL: usize = 32;
/// Events of all calls that are held in memory, but for one of each call that is read when there is no room.
const MOST_HELD: usize = 1024;
/// And their bytes, likewise.
const MOST_HELD_BYTES: usize = 16 * 1024 * 1024;

/// The events of one hook.
#[derive(Debug, Default)]
pub(super) struct Lane {
    /// Calls of which something waits, or is on its way.
    calls: HashMap<Cid, Waiting>,
    /// Those of which nothing is on its way, and when their turn comes.
    ready: BTreeSet<(Instant, Cid)>,
    held: usize,
    held_bytes: usize,
}

#[derive(Debug)]
struct Waiting {
    events: VecDeque<Arc<Outgoing>>,
    /// The last event that was held. More of the call is on disk unless these are all.
    last: i64,
    are_all: bool,
    /// Of the first event.
    attempts: u32,
    /// When its turn came.
    turn: Instant,
}

/// What is to be done next.
#[derive(Debug, PartialEq, Eq)]
pub(super) enum Next {
    /// To deliver this; so often it was tried.
    Deliver(Arc<Outgoing>, u32),
    /// To read what waits of a call behind this number.
    Read(Cid, i64),
}

impl Next {
    /// Whose turn it is.
    pub(super) fn cid(&self) -> &Cid {
        match self {
            Self::Deliver(event, _) => &event.cid,
            Self::Read(cid, _) => cid,
        }
    }
}

impl Lane {
    /// Something of a call waits on disk, from an earlier time.
    pub(super) fn add_from_disk(&mut self, cid: Cid, now: Instant) {
        let waiting = Waiting { events: VecDeque::new(), last: 0, are_all: false, attempts: 0, turn: now };
        if self.calls.insert(cid.clone(), waiting).is_none() {
            self.ready.insert((now, cid));
        }
    }

    /// An event was committed.
    pub(super) fn add(&mut self, event: &Arc<Outgoing>, now: Instant) {
        let has_room = self.has_room(0, event.event.len());
        let waiting = self.calls.entry(event.cid.clone()).or_insert_with(|| {
            self.ready.insert((now, event.cid.clone()));
            Waiting { events: VecDeque::new(), last: event.number - 1, are_all: true, attempts: 0, turn: now }
        });
        if waiting.are_all && has_room && waiting.events.len() < MOST_OF_A_CALL {
            waiting.events.push_back(event.clone());
            waiting.last = event.number;
            self.held += 1;
            self.held_bytes += event.event.len();
        } else {
            waiting.are_all = false;
        }
    }

    /// What is to be done now, if anything: once, until it is said what became of it.
    pub(super) fn next(&mut self, now: Instant) -> Option<Next> {
        if self.wake_up()? > now {
            return None;
        }
        let (turn, cid) = self.ready.pop_first()?;
        let waiting = self.calls.get_mut(&cid)?;
        waiting.turn = turn;
        Some(match waiting.events.front() {
            Some(event) => Next::Deliver(event.clone(), waiting.attempts),
            None => Next::Read(cid, waiting.last),
        })
    }

    /// When there is something to be done next.
    pub(super) fn wake_up(&self) -> Option<Instant> {
        self.ready.first().map(|(at, _)| *at)
    }

    /// The events of a call were read; fewer than [`MOST_OF_A_CALL`] are all there are. It is still the call's turn: else all that
    /// wait would be read before the first is told of.
    pub(super) fn read(&mut self, cid: &Cid, mut events: Vec<Arc<Outgoing>>) {
        let are_all = events.len() < MOST_OF_A_CALL;
        let (read, mut bytes) = (events.len(), 0);
        let fits = |(i, event): &(usize, &Arc<Outgoing>)| {
            bytes += event.event.len();
            *i == 0 || self.has_room(*i, bytes)
        };
        let fitting = events.iter().enumerate().take_while(fits).count();
        events.truncate(fitting);
        let Some(waiting) = self.calls.get_mut(cid) else { return };
        waiting.are_all = are_all && fitting == read;
        self.held += events.len();
        self.held_bytes += events.iter().map(|event| event.event.len()).sum::<usize>();
        waiting.last = events.last().map_or(waiting.last, |event| event.number);
        waiting.events = events.into();
        let turn = waiting.turn;
        self.go_on(cid, turn);
    }

    /// The first event of a call is delivered, or given up.
    pub(super) fn done(&mut self, cid: &Cid, now: Instant) {
        let Some(waiting) = self.calls.get_mut(cid) else { return };
        waiting.attempts = 0;
        if let Some(event) = waiting.events.pop_front() {
            self.held -= 1;
            self.held_bytes -= event.event.len();
        }
        self.go_on(cid, now);
    }

    /// What was to be done for a call did not work. `jitter` is of 0 to 1. Its events are read again by then: of calls that wait
    /// for long there may be many.
    pub(super) fn failed(&mut self, cid: &Cid, now: Instant, jitter: f64) {
        let Some(waiting) = self.calls.get_mut(cid) else { return };
        if let Some(first) = waiting.events.front() {
            self.held -= waiting.events.len();
            self.held_bytes -= waiting.events.iter().map(|event| event.event.len()).sum::<usize>();
            (waiting.last, waiting.are_all) = (first.number - 1, false);
            waiting.events.clear();
        }
        self.ready.insert((now + backoff(waiting.attempts, jitter), cid.clone()));
        waiting.attempts = waiting.attempts.saturating_add(1);
    }

    /// Whether there is room for one more beside so many, all of these bytes.
    fn has_room(&self, beside: usize, bytes: usize) -> bool {
        self.held + beside < MOST_HELD && self.held_bytes + bytes <= MOST_HELD_BYTES
    }

    fn go_on(&mut self, cid: &Cid, now: Instant) {
        let is_over = self.calls.get(cid).is_some_and(|waiting| waiting.events.is_empty() && waiting.are_all);
        if is_over {
            self.calls.remove(cid);
        } else {
            self.ready.insert((now, cid.clone()));
        }
    }
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used, clippy::panic)]
    use super::*;
    use crate::retry::LONGEST;
    use crate::store::Store;
    use cuewire::time::Timestamp;

    fn cid(call: usize) -> Cid {
        Cid::new("default", &format!("c{call}")).unwrap()
    }

    fn put(store: &Store, call: usize, text: &str) -> Arc<Outgoing> {
        let mut event = Outgoing {
            number: 0,
            webhook_id: String::new(),
            cid: cid(call),
            at: Timestamp::EPOCH,
            event_type: String::new(),
            event: text.into(),
        };
        store.put_event(&mut event, ["hook"]).unwrap();
        Arc::new(event)
    }

    /// Does what a lane asks for, until it asks for nothing; what was delivered, in its order.
    fn deliver_all(lane: &mut Lane, store: &Store, now: &mut Instant) -> Vec<(Cid, String)> {
        let (mut delivered, mut tries) = (Vec::new(), 0_u32);
        while let Some(at) = lane.wake_up() {
            *now = at.max(*now);
            match lane.next(*now).unwrap() {
                Next::Read(cid, behind) => {
                    let events = store.events_waiting("hook", &cid, behind, MOST_OF_A_CALL).unwrap();
                    lane.read(&cid, events);
                    assert!(lane.held <= MOST_HELD + 1, "{}", lane.held);
                    assert!(lane.held_bytes <= MOST_HELD_BYTES + lane.calls[&cid].events[0].event.len());
                }
                Next::Deliver(event, _) => {
                    tries += 1;
                    if tries % 3 == 0 {
                        lane.failed(&event.cid, *now, 0.5);
                        continue;
                    }
                    delivered.push((event.cid.clone(), event.event.clone()));
                    // That it was is on disk a little later.
                    if tries % 2 == 0 {
                        store.delivered("hook", &event.cid, event.number).unwrap();
                    }
                    lane.done(&event.cid, *now);
                }
            }
        }
        delivered
    }

    #[test]
    fn every_event_goes_out_once_and_in_order_in_its_call_whatever_was_held() {
        let (store, mut lane, mut now) = (Store::in_memory().unwrap(), Lane::default(), Instant::now());
        // From before: more than are held of a call.
        let mut expected = Vec::new();
        for i in 0..MOST_OF_A_CALL + 5 {
            expected.push((cid(0), put(&store, 0, &format!("old {i}")).event.clone()));
        }
        lane.add_from_disk(cid(0), now);
        // More calls and events than are held of all.
        for i in 0..3000 {
            let event = put(&store, i % 70, &format!("new {i}"));
            lane.add(&event, now);
            expected.push((event.cid.clone(), event.event.clone()));
        }
        assert!(lane.held <= MOST_HELD, "{}", lane.held);
        let delivered = deliver_all(&mut lane, &store, &mut now);
        assert_eq!(delivered.len(), expected.len());
        for call in 0..70 {
            let of = |all: &[(Cid, String)]| -> Vec<String> {
                all.iter().filter(|(of, _)| *of == cid(call)).map(|(_, text)| text.clone()).collect()
            };
            assert_eq!(of(&delivered), of(&expected), "{call}");
        }
        assert!(lane.calls.is_empty() && (lane.held, lane.held_bytes) == (0, 0), "nothing is left behind");
        // Few that are large.
        let large = "x".repeat(MOST_HELD_BYTES / 10);
        for i in 0..25 {
            lane.add(&put(&store, i % 5, &large), now);
        }
        assert!(lane.held <= 10, "{}", lane.held);
        assert_eq!(deliver_all(&mut lane, &store, &mut now).len(), 25);
        assert!(lane.calls.is_empty() && (lane.held, lane.held_bytes) == (0, 0), "nothing is left behind");
        // What was delivered and is still on disk does not go out again.
        for i in 0..2 * MOST_OF_A_CALL {
            lane.add(&put(&store, 1, &format!("last {i}")), now);
        }
        let delivered = deliver_all(&mut lane, &store, &mut now);
        let last: Vec<_> = (0..2 * MOST_OF_A_CALL).map(|i| (cid(1), format!("last {i}"))).collect();
        assert_eq!(delivered, last);
    }

    #[test]
    fn a_call_whose_event_fails_waits_longer_and_longer_and_holds_up_no_other() {
        let (store, mut lane, start) = (Store::in_memory().unwrap(), Lane::default(), Instant::now());
        let bad = put(&store, 0, "bad");
        lane.add(&bad, start);
        lane.add(&put(&store, 0, "behind it"), start);
        let mut now = start;
        let mut waits = Vec::new();
        let next = |lane: &mut Lane, now| {
            if let Some(Next::Read(cid, behind)) = lane.next(now) {
                lane.read(&cid, store.events_waiting("hook", &cid, behind, MOST_OF_A_CALL).unwrap());
                return lane.next(now);
            }
            panic!("of a call that failed nothing is held")
        };
        for attempts in 0..9 {
            let deliver = if attempts == 0 { lane.next(now) } else { next(&mut lane, now) };
            assert_eq!(deliver, Some(Next::Deliver(bad.clone(), attempts)));
            assert_eq!(lane.next(now), None, "one at a time of a call");
            let good = put(&store, 1, "good");
            lane.add(&good, now);
            assert_eq!(lane.next(now), Some(Next::Deliver(good.clone(), 0)));
            lane.done(&good.cid, now);
            lane.failed(&bad.cid, now, 1.0);
            assert_eq!(lane.held, 0);
            let at = lane.wake_up().unwrap();
            waits.push((at - now).as_secs());
            now = at;
        }
        assert_eq!(waits, [1, 2, 4, 8, 16, 32, 60, 60, 60]);
        let Some(Next::Deliver(event, 9)) = next(&mut lane, now) else { panic!() };
        lane.failed(&event.cid, now, 0.0);
        assert_eq!(lane.wake_up(), Some(now + LONGEST / 2), "half of it is chance");
        next(&mut lane, now + LONGEST).unwrap();
        store.delivered("hook", &event.cid, event.number).unwrap();
        lane.done(&event.cid, now);
        assert!(matches!(lane.next(now), Some(Next::Deliver(event, 0)) if event.event == "behind it"));
    }
}
