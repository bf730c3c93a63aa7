//! Every sentence of the rules as a row: what is done, and all that is said.
#![allow(clippy::unwrap_used, clippy::panic, clippy::expect_used)]

use serde_json::json;

use super::*;

mod captions;
mod sessions;

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
