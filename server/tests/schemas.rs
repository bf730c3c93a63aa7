//! Everything that is rendered is what the clients' own models say.
//!
//! `CUEWIRE_TEST_SCHEMAS` names the file that `tests/clients/schemas.py` writes.
#![allow(clippy::unwrap_used, clippy::panic, reason = "a test fails by panicking")]

use std::collections::BTreeSet;

use cuewire::config::Language;
use cuewire::time::Timestamp;
use cuewire_server::api::render;
use cuewire_server::call::grants::Capability;
use cuewire_server::call::settings::{RecognitionPatch, Settings};
use cuewire_server::call::{
    Actor, Call, CallType, Caption, Cid, Command, Effect, Env, Input, Member, NewCall, Output, Process, Transcript,
    User,
};
use cuewire_server::user::Profile;
use serde_json::{Map, Value, json};

#[path = "support/schemas.rs"]
mod support;

use support::{check, schemas};

struct World {
    call_type: CallType,
    call: Call,
    ids: u32,
    rendered: Vec<Value>,
}

fn at(seconds: i64) -> Timestamp {
    Timestamp::from_nanos(1_800_000_000_000_000_000 + seconds * 1_000_000_000)
}

fn profile(id: &str) -> Profile {
    let mut profile = Profile::unknown(id, at(0));
    profile.name = Some(format!("The one called {id}"));
    profile
}

fn env<'a>(now: Timestamp, call_type: &'a CallType, new_id: &'a mut dyn FnMut() -> String) -> Env<'a> {
    Env { now, call_type, new_id, check: &|_| Ok(()), first_participant_s: 3600 }
}

impl World {
    fn act(&mut self, seconds: i64, act: impl FnOnce(&mut Call, &mut Env<'_>)) -> Vec<Effect> {
        let Self { call_type, call, ids, rendered } = self;
        let mut new_id = || {
            *ids += 1;
            format!("id-{ids}")
        };
        let mut env = env(at(seconds), call_type, &mut new_id);
        act(call, &mut env);
        let mut effects = Vec::new();
        while let Some(output) = call.poll_output() {
            match output {
                Output::Event(then, event) => rendered.push(render::event(&then, &event, &env, &profile)),
                Output::Effect(effect) => effects.push(effect),
            }
        }
        effects
    }

    fn command(&mut self, seconds: i64, actor: &Actor, command: Command) -> Vec<Effect> {
        self.act(seconds, |call, env| call.handle_command(env, actor, command).unwrap())
    }
}

fn caption() -> Caption {
    Caption {
        id: "c-1".into(),
        speaker_id: "alice".into(),
        start_time: at(3),
        end_time: at(4),
        text: "hello".into(),
        language: Language::ENGLISH.to_string(),
        translated: false,
        service: Some("elsewhere".into()),
    }
}

/// A call in which everything happens.
fn eventful() -> World {
    let call_type = CallType::new("default", at(0));
    let server = Actor::Server { user_id: Some("carol".into()) };
    let Value::Object(own) = json!({"transcription": {"speech_segment_config": {"silence_duration_ms": 500}}}) else {
        panic!()
    };
    let new = NewCall {
        members: vec![("alice".into(), Member { role: Some("admin".into()), custom: Map::new() })],
        settings: Settings::parse(own).unwrap(),
        starts_at: Some(at(60)),
        team: Some("red".into()),
        ..NewCall::default()
    };
    let mut new_id = || "0".to_string();
    let cid = Cid::new("default", "c").unwrap();
    let call = Call::create(&mut env(at(0), &call_type, &mut new_id), &server, cid, new).unwrap();
    let mut world = World { call_type, call, ids: 0, rendered: Vec::new() };

    let bob = Member { role: None, custom: Map::new() };
    let members = |update, remove| Command::UpdateMembers { update, remove };
    world.command(1, &server, members(vec![("bob".into(), bob.clone())], Vec::new()));
    world.command(1, &server, members(vec![("bob".into(), bob)], Vec::new()));
    world.command(1, &server, members(Vec::new(), vec!["bob".into()]));
    let bob = User { id: "bob".into(), role: "user".into() };
    let grant = vec![Capability::EndCall.as_str().to_string()];
    world.command(1, &server, Command::UpdatePermissions { user: bob, grant, revoke: Vec::new() });
    let custom = json!({"created_at": 5}).as_object().cloned();
    world.command(2, &server, Command::Update { settings: Settings::default(), custom, starts_at: None });
    let alice = Actor::User { user: User { id: "alice".into(), role: "user".into() }, token_role: None };
    world.command(2, &alice, Command::Join);
    let start = || Command::Start {
        process: Process::Transcription,
        recognition: RecognitionPatch::default(),
        with_other: true,
        storage: None,
    };
    world.command(2, &server, start());
    world.act(5, |call, env| call.handle_input(env, Input::Caption { caption: caption(), mark: 1 }));
    let stop = Command::Stop { process: Process::Transcription, with_other: true };
    let effects = world.command(6, &server, stop);
    for effect in effects {
        if let Effect::Hear { mark, .. } = effect {
            world.act(7, |call, env| call.handle_input(env, Input::Passed { mark }));
        }
    }
    let transcript = Transcript {
        filename: "t.jsonl".into(),
        url: "http://127.0.0.1/t.jsonl".into(),
        session_id: "id-1".into(),
        start_time: at(2),
        end_time: at(6),
    };
    let egress_id = "id-3".to_string();
    world.act(8, |call, env| {
        call.handle_input(env, Input::TranscriptStored { egress_id, transcript });
    });
    world.command(9, &server, start());
    world.act(9, |call, env| call.handle_input(env, Input::Failed { error: "out of order".into() }));
    world.command(10, &server, Command::MarkEnded);
    world.act(11, |call, env| call.handle_input(env, Input::Left { user_id: "alice".into() }));
    world.command(12, &server, Command::Delete);
    world
}

#[test]
fn every_event_is_as_the_clients_models_say() {
    let Some(schemas) = schemas() else { return };
    let world = eventful();
    let known: BTreeSet<&str> = schemas["events"].as_object().unwrap().keys().map(String::as_str).collect();
    let said: BTreeSet<&str> = world.rendered.iter().map(|event| event["type"].as_str().unwrap()).collect();
    assert_eq!(said, known, "each kind of event happened");
    for event in &world.rendered {
        let name = event["type"].as_str().unwrap();
        check(&schemas, &schemas["events"][name], event, name);
    }
}

#[test]
fn a_call_is_whole() {
    let Some(schemas) = schemas() else { return };
    let world = eventful();
    let rendered = render::call(&world.call, &world.call_type, &profile);
    let members = render::members(&world.call, &profile);
    let answer = json!({
        "call": rendered, "members": members, "own_capabilities": ["read-call"], "created": true, "duration": "0.1ms",
    });
    check(&schemas, &schemas["responses"]["get_or_create_call"], &answer, "get_or_create_call");
    assert_eq!(answer["call"]["custom"], json!({"created_at": 5}));
}
