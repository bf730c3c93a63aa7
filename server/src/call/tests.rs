//! Every sentence of the rules as a row: what is done, and all that is said.
#![allow(clippy::unwrap_used, clippy::panic, clippy::expect_used)]

use serde_json::json;

use super::*;

const S: i64 = 1_000_000_000;

/// A call, its type, and the time in seconds.
struct World {
    call_type: CallType,
    call: Call,
    ids: u64,
    said: Vec<String>,
}

fn settings(tree: Value) -> Settings {
    let Value::Object(tree) = tree else { panic!("{tree} is no object") };
    Settings::parse(tree).unwrap()
}

fn short(recognition: &Recognition) -> String {
    let segments = recognition.speech_segment_config;
    let rules = [segments.max_speech_caption_ms.ms(), segments.silence_duration_ms.ms()];
    let rules = if rules == [9000, 700] { String::new() } else { format!(" {}/{}", rules[0], rules[1]) };
    format!("{}{rules}{}", recognition.language, if recognition.translate { " translated" } else { "" })
}

fn only_what_whisper_knows(recognition: &Recognition) -> Result<(), String> {
    if recognition.language.to_string() == "uk" { Err("the model has no `uk`".into()) } else { Ok(()) }
}

impl World {
    fn new() -> Self {
        Self::with("default", json!({}))
    }

    fn with(call_type: &str, own: Value) -> Self {
        let call_type = CallType::new(call_type, Timestamp::EPOCH);
        let actor = Actor::Server { user_id: Some("carol".into()) };
        let mut new_id = || "0".to_string();
        let mut env = Env {
            now: Timestamp::EPOCH,
            call_type: &call_type,
            new_id: &mut new_id,
            check: &only_what_whisper_knows,
            first_participant_s: 3600,
        };
        let cid = Cid::new(&call_type.name, "c").unwrap();
        let new = NewCall { settings: settings(own), ..NewCall::default() };
        let mut call = Call::create(&mut env, &actor, cid, new).unwrap();
        assert!(matches!(call.poll_output(), Some(Output::Event(_, Event::Created))));
        Self { call_type, call, ids: 0, said: Vec::new() }
    }

    fn act<R>(&mut self, at_s: i64, act: impl FnOnce(&mut Call, &mut Env<'_>) -> R) -> R {
        let Self { call_type, call, ids, said } = self;
        let mut new_id = || {
            *ids += 1;
            ids.to_string()
        };
        let mut env = Env {
            now: Timestamp::from_nanos(at_s * S),
            call_type,
            new_id: &mut new_id,
            check: &only_what_whisper_knows,
            first_participant_s: 3600,
        };
        let result = act(call, &mut env);
        // The whole state survives being stored.
        let outputs = std::mem::take(&mut call.outputs);
        let stored = serde_json::to_string(&*call).unwrap();
        *call = serde_json::from_str(&stored).unwrap();
        for output in outputs {
            said.push(match output {
                Output::Event(then, event) => name(&then, &event),
                Output::Effect(Effect::Hear { recognition, mark }) => {
                    format!("hear {} #{mark}", recognition.as_ref().map_or("nothing".into(), short))
                }
                Output::Effect(Effect::OpenTranscript(_)) => "open file".into(),
                Output::Effect(Effect::AppendTranscript { caption, .. }) => format!("write {}", caption.text),
                Output::Effect(Effect::CloseTranscript { start_time, end_time, .. }) => {
                    format!("close file {} – {}", start_time.as_nanos() / S, end_time.as_nanos() / S)
                }
                Output::Effect(Effect::Disconnect { user_id }) => format!("disconnect {user_id}"),
            });
        }
        result
    }

    /// Does what a line says: `SECONDS [USER:] VERB …`. A refusal is said too.
    fn step(&mut self, line: &str) {
        let (at, rest) = line.split_once(' ').unwrap();
        let at: i64 = at.parse().unwrap();
        let (actor, rest) = match rest.split_once(": ").filter(|(user, _)| !user.contains(' ')) {
            Some((user, rest)) => (user_actor(user), rest),
            None => (Actor::Server { user_id: None }, rest),
        };
        let (verb, rest) = rest.split_once(' ').unwrap_or((rest, ""));
        let word = |place: usize| rest.split(' ').nth(place).unwrap_or_default();
        let process = if word(0) == "captions" { Process::Captions } else { Process::Transcription };
        let with_other = rest.ends_with(" +");
        let tree = || serde_json::from_str(rest).unwrap();
        let input = match verb {
            "leave" => Input::Left { user_id: word(0).into() },
            "caption" | "translation" => {
                let caption = caption(word(0), word(1).parse().unwrap(), verb == "translation");
                Input::Caption { caption, mark: word(2)[1..].parse().unwrap() }
            }
            "passed" => Input::Passed { mark: word(0)[1..].parse().unwrap() },
            "failed" => Input::Failed { error: "out of order".into() },
            "restart" => Input::Restarted,
            "tick" => Input::Tick,
            "type" => {
                self.call_type.settings = self.call_type.settings.overridden(&settings(tree()));
                Input::TypeUpdated(settings(tree()))
            }
            _ => {
                let command = match verb {
                    "read" => Command::Read,
                    "join" => Command::Join,
                    "start" => {
                        let language = word(1).parse().ok();
                        let recognition = RecognitionPatch { language, ..RecognitionPatch::default() };
                        Command::Start { process, recognition, with_other, storage: None }
                    }
                    "stop" => Command::Stop { process, with_other },
                    "update" => Command::Update { settings: settings(tree()), custom: None, starts_at: None },
                    "custom" => {
                        Command::Update { settings: Settings::default(), custom: Some(Map::new()), starts_at: None }
                    }
                    "send" => Command::SendCaption(caption(word(0), at, false)),
                    "member" => {
                        let member = Member { role: Some(word(1).into()), custom: Map::new() };
                        Command::UpdateMembers { update: vec![(word(0).into(), member)], remove: Vec::new() }
                    }
                    "remove" => Command::UpdateMembers { update: Vec::new(), remove: vec![word(0).into()] },
                    "grant" | "revoke" => {
                        let names = vec![word(1).to_string()];
                        let (grant, revoke) = if verb == "grant" { (names, vec![]) } else { (vec![], names) };
                        let user = User { id: word(0).into(), role: "user".into() };
                        Command::UpdatePermissions { user, grant, revoke }
                    }
                    "list" => Command::ListTranscriptions,
                    "end" => Command::MarkEnded,
                    "delete" => Command::Delete,
                    verb => panic!("{verb}?"),
                };
                let before = self.call.clone();
                if let Err(error) = self.act(at, |call, env| call.handle_command(env, &actor, command)) {
                    assert_eq!(self.call, before, "a refusal changes nothing");
                    self.said.push(match error {
                        CallError::NotAllowed(_) => "not allowed".into(),
                        CallError::Input(why) => format!("refused: {why}"),
                    });
                }
                return;
            }
        };
        self.act(at, |call, env| call.handle_input(env, input));
    }
}

/// `alice`, `alice/admin`, `alice@role-of-her-token`.
fn user_actor(text: &str) -> Actor {
    let (text, token_role) = text.split_once('@').map_or((text, None), |(text, role)| (text, Some(role.to_string())));
    let (id, role) = text.split_once('/').unwrap_or((text, "user"));
    Actor::User { user: User { id: id.into(), role: role.into() }, token_role }
}

fn caption(speaker_id: &str, start_s: i64, translated: bool) -> Caption {
    Caption {
        id: format!("{speaker_id}-{start_s}"),
        speaker_id: speaker_id.into(),
        start_time: Timestamp::from_nanos(start_s * S),
        end_time: Timestamp::from_nanos((start_s + 1) * S),
        text: format!("{speaker_id} at {start_s}{}", if translated { " in English" } else { "" }),
        language: "en".into(),
        translated,
        service: None,
    }
}

fn name(call: &Call, event: &Event) -> String {
    let process = |process: &Process| match process {
        Process::Transcription => "transcription",
        Process::Captions => "captions",
    };
    match event {
        Event::Created => "created".into(),
        Event::Updated => "updated".into(),
        Event::Ended { .. } => "ended".into(),
        Event::Deleted => "deleted".into(),
        Event::SessionStarted { .. } => "session_started".into(),
        Event::SessionEnded { .. } => {
            assert!(!call.runs().is_any() && call.session().is_none(), "{call:?}");
            "session_ended".into()
        }
        Event::ParticipantJoined { participant, .. } => format!("joined {}", participant.user_id),
        Event::ParticipantLeft { participant, .. } => format!("left {}", participant.user_id),
        Event::MembersAdded { user_ids } => format!("member_added {}", user_ids.join(" ")),
        Event::MembersUpdated { user_ids } => format!("member_updated {}", user_ids.join(" ")),
        Event::MembersRemoved { user_ids } => format!("member_removed {}", user_ids.join(" ")),
        Event::PermissionsUpdated { user_id, .. } => format!("permissions {user_id}"),
        Event::ProcessStarted { process: of, .. } => format!("{}_started", process(of)),
        Event::ProcessStopped { process: of, .. } => format!("{}_stopped", process(of)),
        Event::ProcessFailed { process: of, error, .. } => format!("{}_failed {error}", process(of)),
        Event::TranscriptionReady { .. } => "ready".into(),
        Event::ClosedCaption(caption) => format!("show {}", caption.text),
    }
}

/// Does the steps, which say this and nothing else.
fn check(what: &str, mut world: World, steps: &[&str], expected: &[&str]) {
    steps.iter().for_each(|step| world.step(step));
    assert_eq!(world.said, expected, "{what}");
}

const AUTO: &str = r#"{"transcription": {"mode": "auto-on", "closed_caption_mode": "auto-on"}}"#;

#[test]
fn either_process_runs_alone_or_both_with_one_request() {
    let began = ["session_started"];
    let both = |first: &'static str, second: &'static str| [&began[..], &["hear en #1"], &[first, second][..]].concat();
    check(
        "a flag starts the other one",
        World::new(),
        &["0 start captions - +"],
        &["session_started", "hear en #1", "captions_started", "open file", "transcription_started"],
    );
    check("one alone", World::new(), &["0 start captions"], &both("captions_started", "")[..3]);
    check(
        "the path's process decides about errors, the flag's is changed only if needed",
        World::new(),
        &["0 start transcription", "1 start captions - +", "2 start captions - +", "3 start transcription"],
        &[
            "session_started",
            "hear en #1",
            "open file",
            "transcription_started",
            "hear en #2",
            "captions_started",
            "refused: closed captions of this call: it runs already",
            "refused: transcription of this call: it runs already",
        ],
    );
    check(
        "so it is with stops",
        World::new(),
        &["0 stop captions", "0 start transcription", "1 stop captions +", "2 stop transcription +"],
        &[
            "refused: closed captions of this call: it does not run",
            "session_started",
            "hear en #1",
            "open file",
            "transcription_started",
            "refused: closed captions of this call: it does not run",
            "hear nothing #2",
        ],
    );
}

#[test]
fn a_request_needs_the_capabilities_of_both_and_neither_may_be_disabled() {
    check(
        "capabilities",
        World::new(),
        &[
            "0 bob: start captions",
            "0 grant bob start-closed-captions-call",
            "0 bob: start captions - +",
            "0 bob: start captions",
            "0 bob: stop captions",
            "0 grant bob StopClosedCaptions",
            "0 bob: stop captions +",
            "0 bob: stop captions",
        ],
        &[
            "not allowed",
            "permissions bob",
            "not allowed",
            "session_started",
            "hear en #1",
            "captions_started",
            "not allowed",
            "permissions bob",
            "not allowed",
            "hear nothing #2",
        ],
    );
    check(
        "disabled",
        World::with("default", json!({"transcription": {"mode": "disabled"}})),
        &["0 start captions - +", "0 start transcription", "0 start captions"],
        &[
            "refused: transcription of this call: settings.transcription.mode is disabled",
            "refused: transcription of this call: settings.transcription.mode is disabled",
            "session_started",
            "hear en #1",
            "captions_started",
        ],
    );
}

#[test]
fn the_order_of_a_session_is_as_documented() {
    check(
        "not stopped by anybody",
        World::with("default", serde_json::from_str(AUTO).unwrap()),
        &["0 alice: join", "1 caption alice 1 #1", "5 leave alice", "34 tick", "35 tick"],
        &[
            "session_started",
            "joined alice",
            "hear en #1",
            "open file",
            "transcription_started",
            "captions_started",
            "write alice at 1",
            "show alice at 1",
            "left alice",
            "hear nothing #1",
            "captions_stopped",
            "session_ended",
            "close file 0 – 35",
        ],
    );
    check(
        "stopped, with a caption open that began before",
        World::new(),
        &[
            "0 alice: join",
            "0 start transcription - +",
            "9 stop transcription +",
            "9 caption alice 8 #1",
            "9 caption alice 9 #2",
            "10 passed #2",
            "11 leave alice",
            "41 tick",
        ],
        &[
            "session_started",
            "joined alice",
            "hear en #1",
            "open file",
            "transcription_started",
            "captions_started",
            "hear nothing #2",
            "write alice at 8",
            "show alice at 8",
            "captions_stopped",
            "transcription_stopped",
            "close file 0 – 9",
            "left alice",
            "session_ended",
        ],
    );
    check(
        "a stop whose caption is still open when the session ends",
        World::new(),
        &["0 alice: join", "0 start transcription", "9 stop transcription", "10 leave alice", "40 tick"],
        &[
            "session_started",
            "joined alice",
            "hear en #1",
            "open file",
            "transcription_started",
            "hear nothing #2",
            "left alice",
            "transcription_stopped",
            "session_ended",
            "close file 0 – 9",
        ],
    );
}

#[test]
fn sessions_wait_for_participants_and_end_without_them() {
    check(
        "a start makes one, which waits an hour",
        World::new(),
        &["0 start transcription", "3599 tick", "3600 tick"],
        &[
            "session_started",
            "hear en #1",
            "open file",
            "transcription_started",
            "hear nothing #1",
            "session_ended",
            "close file 0 – 3600",
        ],
    );
    check(
        "who comes back in time goes on; a second connection replaces the first",
        World::with("default", json!({"session": {"inactivity_timeout_seconds": 5}})),
        &["0 alice: join", "1 alice: join", "2 leave alice", "6 tick", "6 alice: join", "9 leave alice", "14 tick"],
        &["session_started", "joined alice", "left alice", "joined alice", "left alice", "session_ended"],
    );
    check(
        "marked as ended, it ends when all have left; then nothing starts, and entering needs a capability of its own",
        World::with("default", serde_json::from_str(AUTO).unwrap()),
        &[
            "0 alice: join",
            "1 bob: end",
            "2 carol: end",
            "2 start captions",
            "3 leave alice",
            "4 start captions",
            "5 alice: join",
            "6 carol: join",
        ],
        &[
            "session_started",
            "joined alice",
            "hear en #1",
            "open file",
            "transcription_started",
            "captions_started",
            "not allowed",
            "ended",
            "disconnect alice",
            "refused: the call default:c has ended",
            "left alice",
            "hear nothing #1",
            "captions_stopped",
            "session_ended",
            "close file 0 – 3",
            "refused: the call default:c has ended",
            "not allowed",
            "session_started",
            "joined carol",
        ],
    );
    check(
        "deleted, it ends at once",
        World::new(),
        &["0 alice: join", "0 start transcription", "5 delete"],
        &[
            "session_started",
            "joined alice",
            "hear en #1",
            "open file",
            "transcription_started",
            "disconnect alice",
            "left alice",
            "hear nothing #1",
            "session_ended",
            "close file 0 – 5",
            "deleted",
        ],
    );
    check("marked as ended with nobody there", World::new(), &["0 end", "1 end"], &["ended"]);
}

#[test]
fn what_starts_by_itself_does_so_once_a_session() {
    let auto = serde_json::from_str::<Value>(r#"{"transcription": {"closed_caption_mode": "auto-on"}}"#).unwrap();
    check(
        "not again after an explicit stop, but in the next session",
        World::with("default", auto.clone()),
        &[
            "0 alice: join",
            "1 stop captions",
            "1 passed #2",
            "2 bob: join",
            "3 leave bob",
            "3 leave alice",
            "33 tick",
            "40 alice: join",
        ],
        &[
            "session_started",
            "joined alice",
            "hear en #1",
            "captions_started",
            "hear nothing #2",
            "captions_stopped",
            "joined bob",
            "left bob",
            "left alice",
            "session_ended",
            "session_started",
            "joined alice",
            "hear en #3",
            "captions_started",
        ],
    );
    check(
        "at once where somebody is there; `disabled` stops it as the API does",
        World::new(),
        &[
            "0 alice: join",
            &format!("1 update {auto}"),
            r#"2 update {"transcription": {"closed_caption_mode": "disabled"}}"#,
            "2 passed #2",
            r#"3 type {"transcription": {"mode": "auto-on"}}"#,
            r#"4 type {"transcription": {"mode": "disabled"}}"#,
        ],
        &[
            "session_started",
            "joined alice",
            "updated",
            "hear en #1",
            "captions_started",
            "updated",
            "hear nothing #2",
            "captions_stopped",
            "hear en #3",
            "open file",
            "transcription_started",
            "hear nothing #4",
        ],
    );
}

#[test]
fn the_last_explicit_write_wins_while_something_runs() {
    let language = |code: &str| json!({"transcription": {"language": code}});
    check(
        "the first start takes the request, else the call, else the type, else English",
        World::with("default", language("fr")),
        &["0 start captions de", "1 start transcription", "2 stop captions +", "3 start captions"],
        &[
            "session_started",
            "hear de #1",
            "captions_started",
            "hear de #2",
            "open file",
            "transcription_started",
            "hear nothing #3",
            "hear fr #4",
            "captions_started",
        ],
    );
    check(
        "a start, an update of the call, an update of the type where the call has no override of its own",
        World::new(),
        &[
            &format!("0 type {}", language("it")),
            "0 start captions",
            "1 start transcription es",
            &format!("2 type {}", language("ru")),
            &format!("3 update {}", language("fr")),
            &format!("4 type {}", language("de")),
            r#"5 type {"transcription": {"speech_segment_config": {"silence_duration_ms": 500}}}"#,
            r#"6 update {"transcription": {"translation": {"enabled": true}}}"#,
        ],
        &[
            "session_started",
            "hear it #1",
            "captions_started",
            "hear es #2",
            "open file",
            "transcription_started",
            "hear ru #2",
            "updated",
            "hear fr #2",
            "hear fr 9000/500 #2",
            "updated",
            "hear fr 9000/500 translated #2",
        ],
    );
    check(
        "what the model lacks is refused wherever it is said",
        World::new(),
        &["0 start captions uk", &format!("0 update {}", language("uk"))],
        &["refused: the model has no `uk`"; 2],
    );
}

#[test]
fn captions_belong_to_the_run_in_which_they_began() {
    check(
        "before, within, behind; translations are no part of a transcript",
        World::new(),
        &[
            "0 alice: join",
            "5 start transcription - +",
            "6 caption alice 4 #0",
            "7 caption alice 6 #1",
            "7 translation alice 6 #1",
            "8 stop captions",
            "9 caption alice 8 #2",
        ],
        &[
            "session_started",
            "joined alice",
            "hear en #1",
            "open file",
            "transcription_started",
            "captions_started",
            "write alice at 6",
            "show alice at 6",
            "show alice at 6 in English",
            "hear en #2",
            "write alice at 8",
        ],
    );
    check(
        "from elsewhere: only while captions run, and into a transcript that runs",
        World::new(),
        &["0 send bob", "0 start captions", "1 bob: send bob", "1 send bob", "2 start transcription", "3 send bob"],
        &[
            "refused: closed captions of this call: they do not run",
            "session_started",
            "hear en #1",
            "captions_started",
            "not allowed",
            "show bob at 1",
            "hear en #2",
            "open file",
            "transcription_started",
            "write bob at 3",
            "show bob at 3",
        ],
    );
    check(
        "recognition breaks",
        World::new(),
        &["0 start transcription - +", "5 failed"],
        &[
            "session_started",
            "hear en #1",
            "open file",
            "transcription_started",
            "captions_started",
            "hear nothing #1",
            "captions_failed out of order",
            "transcription_failed out of order",
            "close file 0 – 5",
        ],
    );
}

#[test]
fn translations_are_made_for_captions_alone() {
    check(
        "with a transcription there are none",
        World::with("default", json!({"transcription": {"translation": {"enabled": true}}})),
        &["0 start transcription", "1 start captions", "2 stop captions", "3 passed #3"],
        &[
            "session_started",
            "hear en #1",
            "open file",
            "transcription_started",
            "hear en translated #2",
            "captions_started",
            "hear en #3",
            "captions_stopped",
        ],
    );
}

#[test]
fn a_restart_suspends_sessions_and_those_who_return_go_on() {
    let began = ["session_started", "joined alice", "joined bob", "hear en #1", "open file", "transcription_started"];
    let steps = ["0 alice: join", "0 bob: join", "0 start transcription", "10 restart"];
    let mut world = World::new();
    steps.iter().for_each(|step| world.step(step));
    assert_eq!(world.said[..6], began);
    check(
        "one returns, the other one does not",
        world,
        &["15 alice: join", "16 caption alice 15 #1", "39 tick", "40 tick", "50 leave alice", "80 tick"],
        &[
            &began[..],
            &["hear en #1", "write alice at 15", "left bob", "left alice", "hear nothing #1", "session_ended"],
            &["close file 0 – 80"],
        ]
        .concat(),
    );
    let mut world = World::new();
    steps.iter().for_each(|step| world.step(step));
    check(
        "nobody returns",
        world,
        &["40 tick"],
        &[
            &began[..],
            &["hear en #1", "left alice", "left bob", "hear nothing #1", "session_ended", "close file 0 – 40"],
        ]
        .concat(),
    );
    let mut world = World::new();
    steps.iter().for_each(|step| world.step(step));
    world.said.clear();
    check(
        "who returned and has left is waited for like anybody",
        world,
        &["20 alice: join", "39 leave alice", "40 tick", "69 tick", "70 tick"],
        &["left alice", "left bob", "hear nothing #1", "session_ended", "close file 0 – 70"],
    );
    check(
        "what was set meanwhile to start by itself starts with the first who returns",
        World::new(),
        &["0 alice: join", "1 restart", &format!("2 update {AUTO}"), "3 alice: join", "4 alice: join"],
        &[
            "session_started",
            "joined alice",
            "updated",
            "hear en #1",
            "open file",
            "transcription_started",
            "captions_started",
        ],
    );
    let mut world = World::new();
    ["0 alice: join", "0 start captions", "5 stop captions", "6 restart"].iter().for_each(|step| world.step(step));
    assert_eq!(world.said.last().unwrap(), "captions_stopped", "no caption is open any more");
}

#[test]
fn grants_are_those_of_all_roles_changed_by_permissions() {
    for (what, steps, expected) in [
        ("a user", &["0 bob: list", "0 bob: custom", "0 bob: end"][..], &["not allowed", "not allowed"][..]),
        ("the creator is the host", &["0 carol: custom", "0 carol: end"], &["updated", "ended"]),
        ("an admin", &["0 bob/admin: custom"], &["updated"]),
        ("a guest reads", &["0 bob/guest: read", "0 bob/guest: join"], &["not allowed"]),
        ("nobody in particular", &["0 bob/unheard-of: read"], &["not allowed"]),
        ("a member", &["0 member bob host", "0 bob: custom"], &["member_added bob", "updated"]),
        (
            "no longer a member",
            &["0 member bob host", "0 member bob host", "0 remove bob", "0 remove bob", "0 bob: custom"],
            &["member_added bob", "member_updated bob", "member_removed bob", "not allowed"],
        ),
        ("a token's role", &["0 bob/guest@host: custom"], &["updated"]),
        (
            "granted, and revoked from an admin",
            &[
                "0 grant bob update-call",
                "0 bob: custom",
                "0 revoke bob update-call",
                "0 bob: custom",
                "0 bob/admin: custom",
            ],
            &["permissions bob", "updated", "permissions bob", "not allowed", "not allowed"],
        ),
        (
            "any override is settings",
            &["0 grant bob update-call", r#"0 bob: update {"audio": {"x": 1}}"#],
            &["permissions bob", "not allowed"],
        ),
        ("deleting is the server's", &["0 carol: delete", "0 delete"], &["not allowed", "deleted"]),
        ("a server is nobody", &["0 join"], &["not allowed"]),
        ("who may speak and not join", &["0 revoke bob join-call", "0 bob: join"], &["permissions bob", "not allowed"]),
        (
            "who may join and not speak",
            &["0 revoke bob send-audio", "0 bob: join"],
            &["permissions bob", "not allowed"],
        ),
        ("a list", &["0 revoke bob list-transcriptions", "0 bob: list"], &["permissions bob", "not allowed"]),
    ] {
        check(what, World::new(), steps, expected);
    }
    check("in `development` every signed-in user", World::with("development", json!({})), &["0 bob: end"], &["ended"]);
}

#[test]
fn ids_are_plain() {
    for (call_type, id, is_good) in [
        ("default", "a_Z-9", true),
        ("default", "", false),
        ("default", "../secret", false),
        ("de fault", "x", false),
        ("default", "ä", false),
        ("default", &"x".repeat(64), true),
        ("default", &"x".repeat(65), false),
    ] {
        assert_eq!(Cid::new(call_type, id).is_ok(), is_good, "{call_type}:{id}");
    }
}
