//! The call layer as a sequence of commands and inputs, held against [`Rules`].
//!
//! In: bytes, each operation a letter with its choices behind it. Out: nothing, or a panic.
//!
//! What is refused changes nothing; and beside the call there is another one that is stored and read again before each step, and
//! says and becomes the same.

use cuewire::time::Timestamp;

use super::Dice;
use super::rules::{
    FIRST_S, Heard, Leaves, PROCESSES, Refusal, Rules, UNKNOWN_LANGUAGE, Wanted, default_grants, plain, spellings,
};
use crate::call::grants::Grants;
use crate::call::settings::{Recognition, RecognitionPatch, Settings};
use crate::call::{
    Actor, Call, CallError, CallType, Caption, Cid, Command, Env, Event, Input, Member, NewCall, Output, Transcript,
    User,
};

const USERS: [&str; 4] = ["ann", "bob", "eve", "zoe"];
const ROLES: [&str; 7] = ["user", "admin", "guest", "anonymous", "host", "call_member", "nobody"];
const TYPES: [&str; 3] = ["default", "development", "livestream"];
const STORAGES: [Option<&str>; 3] = [None, Some("archive"), Some("other")];
const S: i64 = 1_000_000_000;
/// The last two are a clock that is set back.
const STEPS: [i64; 12] = [0, S, 5 * S, 30 * S, 1, 30 * S - 1, 31 * S, 900 * S, 3600 * S, 86_400 * S, -S, -86_400 * S];
/// The epoch, today, and a time behind which there is not much left.
const BEGINNINGS: [i64; 3] = [0, 1_700_000_000 * S, i64::MAX - 100 * S];
/// Longer sequences say nothing more.
const MOST_STEPS: usize = 400;

fn check(recognition: &Recognition) -> Result<(), String> {
    if recognition.language.to_string() == UNKNOWN_LANGUAGE {
        Err("the model has no such language".into())
    } else {
        Ok(())
    }
}

/// A caption that is not final yet.
struct Open {
    caption: Caption,
    mark: u64,
    of: Vec<String>,
    is_translated: bool,
}

/// A call, and one that was stored as often as something happened.
struct Pair {
    call: Call,
    stored: Call,
    call_type: CallType,
    ids: u64,
    rules: Rules,
    open: Vec<Open>,
}

fn env<'a>(now: Timestamp, call_type: &'a CallType, new_id: &'a mut dyn FnMut() -> String) -> Env<'a> {
    Env { now, call_type, new_id, check: &check, first_participant_s: FIRST_S }
}

fn outputs(call: &mut Call) -> Vec<Output> {
    std::iter::from_fn(|| call.poll_output()).collect()
}

fn kind(refusal: &CallError) -> Refusal {
    match refusal {
        CallError::NotAllowed(_) => Refusal::NotAllowed,
        CallError::Input(_) => Refusal::Input,
    }
}

impl Pair {
    /// Does the same to both; what the first says.
    fn act<R: PartialEq + std::fmt::Debug>(&mut self, act: impl Fn(&mut Call, &mut Env<'_>) -> R) -> (R, Vec<Output>) {
        let stored = serde_json::to_string(&self.stored).unwrap();
        self.stored = serde_json::from_str(&stored).unwrap();
        let mut both = Vec::new();
        let first = self.ids;
        for call in [&mut self.call, &mut self.stored] {
            self.ids = first;
            let mut new_id = || {
                self.ids += 1;
                format!("id-{}", self.ids)
            };
            let result = act(call, &mut env(self.rules.now, &self.call_type, &mut new_id));
            both.push((result, outputs(call)));
        }
        let (second, first) = (both.pop().unwrap(), both.pop().unwrap());
        assert_eq!(first, second, "one that was stored goes on in another way");
        assert!(self.call == self.stored, "{:?} is not {:?}", self.call, self.stored);
        first
    }

    fn command(&mut self, actor: &Actor, wanted: &Wanted, command: &Command) {
        let expected = self.rules.want(actor, wanted);
        let before = self.call.clone();
        let (result, said) = self.act(|call, env| call.handle_command(env, actor, command.clone()));
        let refusal = result.as_ref().err().map(kind);
        assert_eq!(refusal, expected.err(), "{actor:?} wants {wanted:?}: {result:?}");
        if refusal.is_some() {
            assert!(said.is_empty() && self.call == before, "a refusal changes something: {said:?}");
        }
        self.rules.check(&said, &self.call);
    }

    /// After the rules were told.
    fn input(&mut self, input: &Input) {
        let ((), said) = self.act(|call, env| call.handle_input(env, input.clone()));
        self.rules.check(&said, &self.call);
    }

    /// A caption of the engine's is final.
    fn finish(&mut self, place: usize) {
        let Open { caption, mark, of, is_translated } = self.open.remove(place);
        self.rules.caption(caption.clone(), &of);
        self.input(&Input::Caption { caption: caption.clone(), mark });
        if is_translated {
            let start_time = caption.start_time.plus_nanos(1);
            let caption = Caption { id: format!("{}-en", caption.id), start_time, translated: true, ..caption };
            self.rules.caption(caption.clone(), &of);
            self.input(&Input::Caption { caption, mark });
        }
    }

    fn leave(&mut self, user_id: &str) {
        while let Some(place) = self.open.iter().position(|open| open.caption.speaker_id == user_id) {
            self.finish(place);
        }
        self.rules.left(user_id);
        self.input(&Input::Left { user_id: user_id.to_string() });
    }

    /// Every caption that opened before a mark is final, as far as that is so.
    fn pass(&mut self, finishes: bool) {
        let mark = self.rules.mark;
        while let Some(place) = self.open.iter().position(|open| finishes && open.mark < mark) {
            self.finish(place);
        }
        let mark = self.open.iter().map(|open| open.mark).chain([mark]).min().unwrap_or(mark);
        self.rules.passed(mark);
        self.input(&Input::Passed { mark });
    }

    fn caption(&mut self, speaker_id: &str) -> Caption {
        self.ids += 1;
        Caption {
            id: format!("caption-{}", self.ids),
            speaker_id: speaker_id.to_string(),
            start_time: self.rules.now,
            end_time: self.rules.now.plus_nanos(S),
            text: "so it is".into(),
            language: "en".into(),
            translated: false,
            service: None,
        }
    }
}

fn actor(dice: &mut Dice<'_>) -> Actor {
    match dice.below(8) {
        0 => Actor::Server { user_id: None },
        1 => Actor::Server { user_id: Some(dice.pick(&USERS).into()) },
        place => {
            let user = User { id: USERS[place % USERS.len()].into(), role: dice.pick(&ROLES).into() };
            let token_role = [None, None, Some("host"), Some("call_member"), Some("guest")];
            Actor::User { user, token_role: dice.pick(&token_role).map(str::to_string) }
        }
    }
}

fn heard(dice: &mut Dice<'_>) -> Heard {
    Heard {
        language: dice.pick(&[None, Some("de"), Some("fr"), Some("auto"), Some(UNKNOWN_LANGUAGE)]),
        max_ms: dice.pick(&[None, None, Some(5_000), Some(10_000)]),
        silence_ms: dice.pick(&[None, None, Some(300), Some(2_000)]),
        translate: dice.pick(&[None, Some(true), Some(false)]),
    }
}

/// What may be set, and what may not.
fn leaves(dice: &mut Dice<'_>) -> Leaves {
    const MODES: [Option<&str>; 5] = [None, Some("auto-on"), Some("disabled"), Some("available"), None];
    let mut leaves = Leaves { mode: dice.pick(&MODES), closed_caption_mode: dice.pick(&MODES), ..Leaves::default() };
    match dice.below(8) {
        0..4 => {}
        4 | 5 => leaves.heard = heard(dice),
        6 => leaves.timeout_s = dice.pick(&[Some(5), Some(1), Some(900), Some(0), Some(901), Some(-1)]),
        _ => match dice.below(4) {
            0 => leaves.heard.max_ms = dice.pick(&[Some(4_999), Some(10_001), Some(-1)]),
            1 => leaves.heard.silence_ms = dice.pick(&[Some(299), Some(2_001), Some(1 << 40)]),
            2 => leaves.mode = Some("on"),
            _ => leaves.heard.language = Some("de"),
        },
    }
    leaves
}

fn members(dice: &mut Dice<'_>) -> Vec<(String, Option<String>)> {
    let mut members = Vec::new();
    for user_id in USERS.iter().take(dice.below(4)) {
        let role = dice.below(ROLES.len() + 1).checked_sub(1).map(|place| ROLES[place].to_string());
        members.push((user_id.to_string(), role));
    }
    members
}

fn as_members(members: &[(String, Option<String>)]) -> Vec<(String, Member)> {
    let of = |role: &Option<String>| Member { role: role.clone(), ..Member::default() };
    members.iter().map(|(user_id, role)| (user_id.clone(), of(role))).collect()
}

fn patch(heard: Heard) -> RecognitionPatch {
    RecognitionPatch {
        language: heard.language.map(|language| language.parse().unwrap()),
        max_speech_caption_ms: heard.max_ms.map(|ms| u32::try_from(ms).unwrap().try_into().unwrap()),
        silence_duration_ms: heard.silence_ms.map(|ms| u32::try_from(ms).unwrap().try_into().unwrap()),
        translate: heard.translate,
    }
}

/// Makes the call, as somebody wants it, or else as a server does.
fn create(dice: &mut Dice<'_>, now: Timestamp) -> Pair {
    let mut call_type = CallType::new(dice.pick(&TYPES), now);
    let mut of_type = leaves(dice);
    match of_type.settings().filter(|_| of_type.heard.language != Some(UNKNOWN_LANGUAGE)) {
        Some(settings) => call_type.settings = settings,
        None => of_type = Leaves::default(),
    }
    let (who, wanted, mut own) = (actor(dice), members(dice), leaves(dice));
    let settings = own.settings().unwrap_or_default();
    if settings.is_empty() {
        own = Leaves::default();
    }
    let server = Actor::Server { user_id: Some("ann".into()) };
    for (who, members, own, settings) in
        [(who, wanted, own, settings), (server, Vec::new(), Leaves::default(), Settings::default())]
    {
        let around = (default_grants(&call_type.name), of_type);
        let expected = Rules::creates(&who, around, &members, own, !settings.is_empty(), now);
        let new = NewCall { members: as_members(&members), settings, ..NewCall::default() };
        let mut new_id = || "never".to_string();
        let cid = Cid::new(&call_type.name, "c").unwrap();
        let created = Call::create(&mut env(now, &call_type, &mut new_id), &who, cid, new);
        match (created, expected) {
            (Ok(mut call), Ok(mut rules)) => {
                let said = outputs(&mut call);
                assert!(matches!(&said[..], [Output::Event(_, Event::Created)]), "{said:?}");
                rules.check(&[], &call);
                return Pair { stored: call.clone(), call, call_type, ids: 0, rules, open: Vec::new() };
            }
            (Err(error), Err(refusal)) => assert_eq!(kind(&error), refusal, "{who:?} creates a call: {error}"),
            (created, expected) => panic!("{who:?} creates {created:?}: {:?}", expected.err()),
        }
    }
    panic!("a server cannot make a call")
}

/// A sequence of commands and inputs.
pub fn call(data: &[u8]) {
    let mut dice = Dice(data);
    let now = Timestamp::from_nanos(dice.pick(&BEGINNINGS));
    let mut pair = create(&mut dice, now);
    for _ in 0..MOST_STEPS {
        if dice.is_over() {
            break;
        }
        match dice.operation(20) {
            0 => {
                let place = dice.below(4);
                let user = User { id: USERS[place].into(), role: "user".into() };
                pair.command(&Actor::User { user, token_role: None }, &Wanted::Join, &Command::Join);
            }
            1 => {
                let process = dice.pick(&PROCESSES);
                let with_other = dice.maybe();
                let storage = dice.pick(&STORAGES).map(str::to_string);
                let heard = heard(&mut dice);
                let who = actor(&mut dice);
                let wanted = Wanted::Start { process, heard, with_other, storage: storage.clone() };
                let command = Command::Start { process, recognition: patch(heard), with_other, storage };
                pair.command(&who, &wanted, &command);
            }
            2 => {
                let (process, with_other) = (dice.pick(&PROCESSES), dice.maybe());
                let who = actor(&mut dice);
                pair.command(&who, &Wanted::Stop { process, with_other }, &Command::Stop { process, with_other });
            }
            3 => pair.leave(dice.pick(&USERS)),
            4 => {
                let speakers = pair.rules.speakers();
                if let Some(is_translated) = pair.rules.hears().filter(|_| !speakers.is_empty()) {
                    let speaker = &speakers[dice.below(speakers.len())];
                    let (mark, of) = (pair.rules.mark, pair.rules.runs_now());
                    let caption = pair.caption(speaker);
                    pair.open.push(Open { caption, mark, of, is_translated });
                }
            }
            5 => {
                if !pair.open.is_empty() {
                    let place = dice.below(pair.open.len());
                    pair.finish(place);
                }
            }
            6 => pair.pass(dice.maybe()),
            7 => {
                pair.rules.now = pair.rules.now.plus_nanos(dice.pick(&STEPS));
                pair.rules.tick();
                pair.input(&Input::Tick);
            }
            8 => {
                let (leaves, custom, who) = (leaves(&mut dice), dice.maybe(), actor(&mut dice));
                if let Some(settings) = leaves.settings() {
                    let wanted = Wanted::Update { leaves, is_empty: settings.is_empty(), custom };
                    let custom = custom.then(Default::default);
                    pair.command(&who, &wanted, &Command::Update { settings, custom, starts_at: None });
                }
            }
            9 => {
                let leaves = leaves(&mut dice);
                let is_known = leaves.heard.language != Some(UNKNOWN_LANGUAGE);
                if let Some(settings) = leaves.settings().filter(|_| is_known) {
                    pair.call_type.settings = pair.call_type.settings.overridden(&settings);
                    pair.call_type.external_storage = dice.pick(&STORAGES).map(str::to_string);
                    pair.rules.storage_of_type = pair.call_type.external_storage.clone();
                    pair.rules.type_updated(leaves);
                    pair.input(&Input::TypeUpdated(settings));
                }
            }
            10 => {
                let update = members(&mut dice);
                let remove: Vec<_> = USERS.iter().take(dice.below(4)).rev().map(ToString::to_string).collect();
                let command = Command::UpdateMembers { update: as_members(&update), remove: remove.clone() };
                let who = actor(&mut dice);
                pair.command(&who, &Wanted::Members { update, remove }, &command);
            }
            11 => {
                let names = spellings();
                let mut some =
                    || -> Vec<String> { (0..dice.below(3)).map(|_| dice.pick(&names).to_string()).collect() };
                let (grant, revoke) = (some(), some());
                let user = User { id: dice.pick(&USERS).into(), role: dice.pick(&ROLES).into() };
                let who = actor(&mut dice);
                let (user_id, role) = (user.id.clone(), user.role.clone());
                let wanted = Wanted::Permissions { user_id, role, grant: grant.clone(), revoke: revoke.clone() };
                pair.command(&who, &wanted, &Command::UpdatePermissions { user, grant, revoke });
            }
            12 => {
                let speaker = dice.pick(&USERS);
                let caption = Caption { translated: dice.maybe(), service: Some("x".into()), ..pair.caption(speaker) };
                let who = actor(&mut dice);
                pair.command(&who, &Wanted::Send(caption.clone()), &Command::SendCaption(caption));
            }
            13 => {
                let count = pair.rules.to_store.len();
                if count > 0 {
                    let (egress_id, session_id) = pair.rules.to_store.remove(dice.below(count));
                    let (start_time, end_time) = (pair.rules.now, pair.rules.now);
                    let (filename, url) = ("f.jsonl".to_string(), "https://x".to_string());
                    let transcript = Transcript { filename, url, session_id, start_time, end_time };
                    let input = if dice.maybe() {
                        pair.rules.stored(&egress_id, Err("full".into()));
                        Input::TranscriptFailed { egress_id, error: "full".into() }
                    } else {
                        pair.rules.stored(&egress_id, Ok(transcript.clone()));
                        Input::TranscriptStored { egress_id, transcript }
                    };
                    pair.input(&input);
                }
            }
            14 => {
                pair.rules.failed();
                pair.input(&Input::Failed { error: "out of order".into() });
            }
            15 => {
                pair.open.clear();
                pair.rules.restarted();
                pair.input(&Input::Restarted);
            }
            16 => {
                let who = actor(&mut dice);
                pair.command(&who, &Wanted::End, &Command::MarkEnded);
            }
            17 => {
                let (lists, who) = (dice.maybe(), actor(&mut dice));
                let both = [(Wanted::Read, Command::Read), (Wanted::List, Command::ListTranscriptions)];
                let (wanted, command) = &both[usize::from(lists)];
                pair.command(&who, wanted, command);
            }
            18 => {
                let who = actor(&mut dice);
                pair.command(&who, &Wanted::Delete, &Command::Delete);
                if matches!(who, Actor::Server { .. }) {
                    return;
                }
            }
            _ => {
                // Of one role, as a platform's server writes it.
                let names = spellings();
                let granted: Vec<_> = (0..dice.below(4)).map(|_| dice.pick(&names)).collect();
                let role = dice.pick(&ROLES);
                pair.call_type.grants = pair.call_type.grants.overridden(&Grants::new([(role, &granted)]));
                let granted = granted.iter().map(|name| plain(name).to_string());
                pair.rules.grants.insert(role.to_string(), granted.collect());
                pair.rules.type_updated(Leaves::default());
                pair.input(&Input::TypeUpdated(Settings::default()));
            }
        }
    }
}
