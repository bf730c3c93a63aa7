//! What a call says, held against what it is to say.
//!
//! In: its outputs, in their order, and the call behind them. Out: nothing, or a panic where a rule was broken.

use std::collections::{BTreeMap, BTreeSet};

use super::{Cause, File, Heard, PROCESSES, Rules, Told, Wait};
use crate::call::{Call, Effect, Event, Output, Process, Run, Waiting};

impl Rules {
    /// What the call said to it, all of it; what it is now.
    pub(in crate::fuzz) fn check(&mut self, outputs: &[Output], call: &Call) {
        let mut cause = std::mem::take(&mut self.cause);
        let (mut opened, mut owed) = (None, Vec::new());
        let mut has_heard = false;
        for output in outputs {
            assert!(!self.is_gone(), "something is said behind the end: {output:?}");
            match output {
                Output::Event(then, event) => self.event(&mut cause, &mut opened, &mut owed, then, event),
                Output::Effect(effect) => {
                    has_heard |= matches!(effect, Effect::Hear { .. });
                    self.effect(&mut cause, &mut opened, &mut owed, effect);
                }
            }
        }
        // What was stopped just now goes on until what is open now is final.
        let mark = self.mark;
        for (_, of) in self.runs.iter_mut().filter_map(|run| run.stopped.as_mut()) {
            of.get_or_insert(mark);
        }
        self.is_as_caused(&cause, has_heard);
        assert!(opened.is_none() && owed.is_empty(), "owed: {opened:?} {owed:?}");
        self.is_as_it_says(call);
    }

    fn is_gone(&self) -> bool {
        self.created_by.is_empty()
    }

    fn effect(&mut self, cause: &mut Cause, opened: &mut Option<String>, owed: &mut Vec<String>, effect: &Effect) {
        match effect {
            Effect::Hear { recognition, mark } => {
                assert!(*mark >= self.mark, "marks go back from {} to {mark}", self.mark);
                (self.hearing, self.mark) = (recognition.clone(), *mark);
            }
            Effect::OpenTranscript(Run { process, egress_id, session_id, from, to, storage, .. }) => {
                assert_eq!((*process, *to), (Process::Transcription, None));
                assert!(*from >= self.now, "a run begins before it was asked for");
                assert_eq!(Some(session_id), self.told.as_ref());
                assert_eq!(*storage, cause.storage, "the file's storage");
                assert!(self.ids.insert(egress_id.clone()) && opened.is_none(), "{egress_id} again");
                *opened = Some(egress_id.clone());
                let file = File { session_id: session_id.clone(), from: *from, is_closed: false };
                self.files.insert(egress_id.clone(), file);
            }
            Effect::AppendTranscript { egress_id, caption } => {
                assert_eq!(cause.writes_to.take().as_ref(), Some(egress_id));
                assert_eq!(cause.caption.as_ref(), Some(caption));
                assert!(!self.files[egress_id].is_closed && !caption.translated);
            }
            Effect::CloseTranscript { egress_id, session_id, start_time, end_time } => {
                let file = self.files.get_mut(egress_id).expect("a file that was opened");
                assert_eq!((session_id, start_time), (&file.session_id, &file.from));
                assert!(!std::mem::replace(&mut file.is_closed, true), "{egress_id} is closed twice");
                let place = owed.iter().position(|owed| owed.starts_with(&format!("{egress_id}@")));
                let place = place.expect("a file is closed when its run has ended, and not before");
                let at = owed.remove(place);
                assert_eq!(at, format!("{egress_id}@{}", end_time.as_nanos()));
                assert!(!cause.is_over || cause.is_restarted, "a file is closed behind its session's end");
                self.to_store.push((egress_id.clone(), session_id.clone()));
            }
            Effect::Disconnect { user_id } => {
                assert!(cause.sent_away.remove(user_id), "{user_id} is sent away");
                assert!(self.here.contains(user_id), "{user_id} is not there");
            }
        }
    }

    fn event(
        &mut self,
        cause: &mut Cause,
        opened: &mut Option<String>,
        owed: &mut Vec<String>,
        then: &Call,
        event: &Event,
    ) {
        match event {
            Event::Created => panic!("created again"),
            Event::Updated => assert!(std::mem::take(&mut cause.is_updated), "nobody has changed it"),
            Event::Ended { .. } => assert!(std::mem::take(&mut cause.is_ended), "nobody has ended it"),
            Event::Deleted => {
                assert!(std::mem::take(&mut cause.is_deleted) && self.told.is_none(), "deleted in a session");
                self.created_by.clear();
            }
            Event::SessionStarted { session_id } => {
                assert!(self.told.is_none() && self.ids.insert(session_id.clone()), "session {session_id} again");
                self.told = Some(session_id.clone());
            }
            Event::SessionEnded { session_id } => {
                assert_eq!(self.told.take().as_ref(), Some(session_id));
                assert!(std::mem::take(&mut cause.is_over), "the session is not over");
                assert!(self.here.is_empty(), "{:?} have not left", self.here);
                assert!(then.session().is_none() && !then.runs().is_any(), "{then:?}");
                for run in std::mem::take(&mut self.runs) {
                    assert!(run.process == Process::Transcription && run.stopped.is_none(), "{run:?} has not ended");
                    owed.push(format!("{}@{}", run.egress_id, self.now.as_nanos()));
                }
            }
            Event::ParticipantJoined { session_id, participant } => {
                assert_eq!(Some(session_id), self.told.as_ref());
                assert_eq!(cause.joins.take().as_ref(), Some(&participant.user_id));
                assert!(self.here.insert(participant.user_id.clone()), "{participant:?} is there");
            }
            Event::ParticipantLeft { session_id, participant, at } => {
                assert_eq!((Some(session_id), *at), (self.told.as_ref(), self.now));
                assert!(cause.leave.remove(&participant.user_id), "{participant:?} has not left");
                assert!(self.here.remove(&participant.user_id), "{participant:?} was not there");
            }
            Event::MembersAdded { user_ids } => assert_eq!(std::mem::take(&mut cause.added), *user_ids),
            Event::MembersUpdated { user_ids } => assert_eq!(std::mem::take(&mut cause.changed), *user_ids),
            Event::MembersRemoved { user_ids } => assert_eq!(std::mem::take(&mut cause.removed), *user_ids),
            Event::PermissionsUpdated { user_id, own_capabilities } => {
                assert_eq!(cause.permissions.take(), Some((user_id.clone(), own_capabilities.clone())));
            }
            Event::ProcessStarted { process, egress_id } => {
                assert!(self.told.is_some() && !self.is_ended, "{process:?} starts without a session");
                assert!(cause.joins.is_none(), "{process:?} starts before who joins is there");
                let place = cause.starts.iter().position(|starts| starts == process);
                cause.starts.remove(place.unwrap_or_else(|| panic!("nobody has started {process:?}")));
                let is_there = self.runs.iter().any(|run| run.process == *process && run.stopped.is_none());
                assert!(!is_there && self.leaves().mode_of(*process) != "disabled", "{process:?} runs, or may not");
                match process {
                    Process::Transcription => assert_eq!(opened.take().as_ref(), Some(egress_id)),
                    Process::Captions => assert!(self.ids.insert(egress_id.clone()), "{egress_id} again"),
                }
                self.runs.push(Told { process: *process, egress_id: egress_id.clone(), stopped: None });
            }
            Event::ProcessStopped { process, egress_id } => {
                let run = self.ends(owed, *process, egress_id);
                match run.stopped {
                    // Behind its last caption, or with all that was open.
                    Some((_, mark)) => {
                        let has_passed = cause.passed.is_some_and(|passed| mark.is_some_and(|mark| mark <= passed));
                        assert!(has_passed || cause.is_over || cause.has_failed, "{run:?} has open captions");
                    }
                    None => assert!(*process == Process::Captions && cause.is_over, "nobody has stopped {run:?}"),
                }
                // By a restart runs end that were stopped, whoever is there.
                if cause.is_over && !cause.is_restarted {
                    assert!(self.here.is_empty(), "{process:?} ends before all have left");
                    let captions = self.runs.iter().any(|run| run.process == Process::Captions);
                    assert!(*process == Process::Captions || !captions, "captions end first");
                }
            }
            Event::ProcessFailed { process, egress_id, error } => match cause.stored.take() {
                Some((stored, Err(why))) => {
                    assert_eq!((*process, egress_id, error), (Process::Transcription, &stored, &why));
                }
                _ => {
                    let run = self.ends(owed, *process, egress_id);
                    assert!(cause.has_failed && run.stopped.is_none(), "{run:?} has not failed");
                }
            },
            Event::TranscriptionReady { egress_id, transcript } => {
                assert_eq!(cause.stored.take(), Some((egress_id.clone(), Ok(transcript.clone()))));
            }
            Event::ClosedCaption(caption) => {
                assert!(cause.writes_to.is_none(), "a caption is shown before it is written");
                assert!(std::mem::take(&mut cause.shows), "captions did not run");
                assert_eq!(cause.caption.as_ref(), Some(caption));
            }
        }
    }

    /// A run's end is told; its file is to be closed.
    fn ends(&mut self, owed: &mut Vec<String>, process: Process, egress_id: &str) -> Told {
        let place = self.runs.iter().position(|run| run.process == process && run.egress_id == egress_id);
        let run = self.runs.remove(place.unwrap_or_else(|| panic!("{process:?} {egress_id} does not run")));
        if process == Process::Transcription {
            owed.push(format!("{egress_id}@{}", run.stopped.map_or(self.now, |(at, _)| at).as_nanos()));
        }
        run
    }

    /// All that was to be said was said.
    fn is_as_caused(&self, cause: &Cause, has_heard: bool) {
        let Cause { starts, is_over, joins, leave, sent_away, is_ended, is_deleted, is_updated, permissions, .. } =
            cause;
        assert!(starts.is_empty(), "{starts:?} is to start");
        assert!(joins.is_none() && leave.is_empty(), "{joins:?} joins, {leave:?} leave");
        assert!(sent_away.is_empty(), "{sent_away:?} are to be sent away");
        // A call without a session has none that ends.
        assert!(!is_over || self.told.is_none(), "the session is over");
        assert!(!is_ended && !is_deleted && !is_updated && permissions.is_none());
        assert!(cause.added.is_empty() && cause.changed.is_empty() && cause.removed.is_empty());
        assert!(cause.writes_to.is_none() && !cause.shows && cause.stored.is_none(), "a caption or a file is lost");
        assert!(!cause.is_restarted || self.running.is_empty() || has_heard, "new tracks are not heard");
        let is_left = |run: &Told| match run.stopped {
            Some((_, mark)) => cause.has_failed || mark.zip(cause.passed).is_some_and(|(mark, passed)| mark <= passed),
            None => cause.has_failed,
        };
        assert!(!self.runs.iter().any(is_left), "a run does not end: {:?}", self.runs);
    }

    fn is_as_it_says(&self, call: &Call) {
        let running: BTreeSet<_> =
            self.runs.iter().filter(|run| run.stopped.is_none()).map(|run| run.process).collect();
        assert_eq!(running, self.running, "what runs");
        for process in PROCESSES {
            let told = self.runs.iter().find(|run| run.process == process && run.stopped.is_none());
            assert_eq!(call.runs().of(process).map(|run| &run.egress_id), told.map(|run| &run.egress_id));
            assert!(told.is_none() || self.leaves().mode_of(process) != "disabled", "{process:?} is disabled");
        }
        let open: BTreeSet<_> = self.files.iter().filter(|(_, file)| !file.is_closed).map(|(id, _)| id).collect();
        let of_runs = self.runs.iter().filter(|run| run.process == Process::Transcription).map(|run| &run.egress_id);
        assert_eq!(open, of_runs.collect(), "one file a run");
        let translates = |heard: Heard| heard.whole().translate.map(|said| said && self.runs(Process::Captions));
        let heard = self.heard.map(|heard| Heard { translate: translates(heard), ..heard });
        match (heard, &self.hearing) {
            (None, None) => {}
            (Some(heard), Some(hearing)) => assert!(heard.is(hearing), "{hearing:?} is not {heard:?}"),
            (heard, hearing) => panic!("{hearing:?} is not {heard:?}"),
        }
        assert_eq!(
            (self.told.as_deref(), self.told.is_some()),
            (call.session().map(|of| of.id()), self.session.is_some())
        );
        if let (Some(session), Some(said)) = (&self.session, call.session()) {
            let here: BTreeMap<_, _> = said.participants().iter().map(|(id, one)| (id.clone(), one.away)).collect();
            assert_eq!(here, session.here, "who is there");
            assert_eq!(here.keys().cloned().collect::<BTreeSet<_>>(), self.here, "who was told to be there");
            let waiting = said.waiting().map(|waiting| match waiting {
                Waiting::ForFirst(until) => Wait::First(until),
                Waiting::Empty(until) => Wait::Empty(until),
                Waiting::Suspended(until) => Wait::Suspended(until),
            });
            assert_eq!(waiting, session.waiting, "what the session waits for");
        }
        assert_eq!(call.wake_up(), call.session().and_then(|session| Some(session.waiting()?.until())));
        assert_eq!(call.ended_at().is_some(), self.is_ended, "whether it has ended");
        let members: BTreeMap<_, _> =
            call.members().iter().map(|(id, membership)| (id.clone(), membership.member.role.clone())).collect();
        assert_eq!(members, self.members, "members");
    }
}
