//! What a media server with an API of its own does with calls: the rules are the call layer's, the rest is the host's.
//!
//! `cargo run --release -p cuewire-server --example embed_calls -- testdata/models/whisper-base-q8_0.gguf a.wav b.flac` treats
//! each recording as a participant of one call, who speaks as fast as the engine hears. Captions and transcription are started
//! before the first one joins; the transcript is written when the last one has left.

use std::collections::{BTreeMap, BTreeSet, HashMap};
use std::error::Error;
use std::io::stdout;
use std::path::Path;
use std::sync::Arc;
use std::thread;
use std::time::{Duration, SystemTime};

use cuewire::asr::whisper::WhisperModel;
use cuewire::audio::file::AudioFile;
use cuewire::caption::CaptionEvent;
use cuewire::config::Config;
use cuewire::engine::{AudioSender, Engine, EngineConfig, EngineEvent, Model, PushError, TrackConfig, TrackId};
use cuewire::time::nanos_of_samples;
use cuewire::transcript::{Fragment, jsonl, sort};
use cuewire::{Pcm, Timestamp};
use cuewire_server::call::settings::{Recognition, RecognitionPatch};
use cuewire_server::call::{
    Actor, Call, CallError, CallType, Caption, Cid, Command, Effect, Env, Input, NewCall, Output, Process, User,
};

fn main() -> Result<(), Box<dyn Error>> {
    let mut args = std::env::args().skip(1);
    let model = Arc::new(WhisperModel::load(args.next().ok_or("usage: embed_calls MODEL RECORDING…")?)?);
    let mut host = Host::new(model)?;
    let events = host.engine.subscribe();

    let start = Command::Start {
        process: Process::Transcription,
        recognition: RecognitionPatch::default(),
        with_other: true,
        storage: None,
    };
    host.command(&Actor::Server { user_id: None }, start)?;
    for path in args {
        host.join(&path)?;
    }
    while host.call.session().is_some() {
        match events.recv_timeout(Duration::from_millis(100)) {
            Ok(event) => host.handle(event),
            Err(_) => host.input(Input::Tick),
        }
    }
    host.engine.shutdown(Duration::from_secs(2));
    Ok(())
}

/// One call, its tracks and its transcripts.
struct Host {
    engine: Engine,
    model: Arc<WhisperModel>,
    call_type: CallType,
    call: Call,
    ids: u64,
    /// How tracks are heard, for those that come later.
    config: Config,
    mark: u64,
    tracks: BTreeMap<TrackId, String>,
    /// Marks that tracks have not passed.
    pending: BTreeMap<u64, BTreeSet<TrackId>>,
    transcripts: HashMap<String, Vec<Fragment>>,
}

fn now() -> Timestamp {
    SystemTime::now().into()
}

fn config_of(recognition: Option<&Recognition>) -> Config {
    let mut config = Config::default();
    config.paused = recognition.is_none();
    if let Some(recognition) = recognition {
        config.language = recognition.language;
        config.speech_segment_config = recognition.speech_segment_config;
        config.translations = recognition.translate;
    }
    config
}

impl Host {
    fn new(model: Arc<WhisperModel>) -> Result<Self, Box<dyn Error>> {
        let call_type = CallType::new("default", now());
        let mut env = Env {
            now: now(),
            call_type: &call_type,
            new_id: &mut String::new,
            check: &|_| Ok(()),
            first_participant_s: 3600,
        };
        let owner = Actor::Server { user_id: Some("host".into()) };
        let call = Call::create(&mut env, &owner, Cid::new("default", "monday")?, NewCall::default())?;
        Ok(Self {
            engine: Engine::start(EngineConfig::default(), model.clone())?,
            model,
            call_type,
            call,
            ids: 0,
            config: config_of(None),
            mark: 0,
            tracks: BTreeMap::new(),
            pending: BTreeMap::new(),
            transcripts: HashMap::new(),
        })
    }

    /// Asks the call, which knows whether somebody may, and does what follows.
    fn command(&mut self, actor: &Actor, command: Command) -> Result<(), CallError> {
        self.change(|call, env| call.handle_command(env, actor, command))?;
        self.bring_about();
        Ok(())
    }

    fn input(&mut self, input: Input) {
        self.change(|call, env| call.handle_input(env, input));
        self.bring_about();
    }

    fn change<T>(&mut self, change: impl FnOnce(&mut Call, &mut Env<'_>) -> T) -> T {
        let (model, ids) = (self.model.clone(), &mut self.ids);
        let mut new_id = || {
            *ids += 1;
            format!("id-{ids}")
        };
        let mut env = Env {
            now: now(),
            call_type: &self.call_type,
            new_id: &mut new_id,
            check: &|recognition| model.check(&config_of(Some(recognition))),
            first_participant_s: 3600,
        };
        change(&mut self.call, &mut env)
    }

    /// A host that keeps calls writes `self.call` and these outputs in one commit first.
    fn bring_about(&mut self) {
        while let Some(output) = self.call.poll_output() {
            match output {
                Output::Event(_, event) => eprintln!("{event:?}"),
                Output::Effect(Effect::Hear { recognition, mark }) => self.hear(recognition.as_ref(), mark),
                Output::Effect(Effect::OpenTranscript(run)) => drop(self.transcripts.insert(run.egress_id, Vec::new())),
                Output::Effect(Effect::AppendTranscript { egress_id, caption }) => {
                    let Caption { start_time, end_time, speaker_id, text, .. } = caption;
                    let fragment = Fragment { start_time, stop_time: end_time, speaker_id, text, ..Default::default() };
                    self.transcripts.entry(egress_id).or_default().push(fragment);
                }
                Output::Effect(Effect::CloseTranscript { egress_id, .. }) => {
                    let mut fragments = self.transcripts.remove(&egress_id).unwrap_or_default();
                    sort(&mut fragments);
                    if let Err(error) = fragments.iter().try_for_each(|one| jsonl::write_fragment(&mut stdout(), one)) {
                        eprintln!("the transcript cannot be written: {error}");
                    }
                }
                Output::Effect(Effect::Disconnect { .. }) => {} // A recording has no connection.
            }
        }
    }

    /// From each track's next caption on.
    fn hear(&mut self, recognition: Option<&Recognition>, mark: u64) {
        self.config = config_of(recognition);
        let is_marked = std::mem::replace(&mut self.mark, mark) != mark;
        for track in self.tracks.keys() {
            // A track that has ended opens no more captions.
            if is_marked && self.engine.mark(*track, mark).is_ok() {
                self.pending.entry(mark).or_default().insert(*track);
            }
            let _ = self.engine.reconfigure(*track, self.config.clone());
        }
        if is_marked && !self.pending.contains_key(&mark) {
            self.input(Input::Passed { mark });
        }
    }

    fn passed(&mut self, track: TrackId, is_passed: impl Fn(u64) -> bool) {
        let mut passed = Vec::new();
        self.pending.retain(|mark, tracks| {
            if is_passed(*mark) && tracks.remove(&track) && tracks.is_empty() {
                passed.push(*mark);
            }
            !tracks.is_empty()
        });
        passed.into_iter().for_each(|mark| self.input(Input::Passed { mark }));
    }

    fn join(&mut self, path: &str) -> Result<(), Box<dyn Error>> {
        let recording = AudioFile::open(Path::new(path))?;
        let user = User { id: path.to_string(), role: "user".into() };
        self.command(&Actor::User { user, token_role: None }, Command::Join)?;
        let mut config = TrackConfig::new(path);
        config.config = self.config.clone();
        // As fast as it is heard is faster than captions are made: they may be late.
        config.patience = Duration::from_secs(600);
        let (sender, track) = self.engine.add_track(config)?;
        self.engine.mark(track, self.mark)?;
        self.tracks.insert(track, path.to_string());
        let path = path.to_string();
        thread::spawn(move || {
            if let Err(error) = speak(recording, sender) {
                eprintln!("{path}: {error}");
            }
        });
        Ok(())
    }

    fn handle(&mut self, event: EngineEvent) {
        match event {
            EngineEvent::Caption { track, event, mark, .. } => {
                let CaptionEvent::Final { id, start_time, end_time, speaker_id, language, text, translated, .. } =
                    event
                else {
                    return;
                };
                let caption = Caption {
                    id: format!("{track}-{}", id.0),
                    speaker_id: speaker_id.to_string(),
                    start_time,
                    end_time,
                    text,
                    language: language.to_string(),
                    translated,
                    service: None,
                };
                self.input(Input::Caption { caption, mark });
            }
            EngineEvent::Marked { track, mark } => self.passed(track, |one| one <= mark),
            EngineEvent::Ended { track, .. } => {
                self.passed(track, |_| true);
                if let Some(user_id) = self.tracks.remove(&track) {
                    self.input(Input::Left { user_id });
                }
                if self.tracks.is_empty() {
                    // Or wait for the session's timeout.
                    if let Err(error) = self.command(&Actor::Server { user_id: None }, Command::MarkEnded) {
                        eprintln!("{error}");
                    }
                }
            }
            _ => {}
        }
    }
}

/// A participant. The track ends with its sender.
fn speak(mut recording: AudioFile, mut sender: AudioSender) -> Result<(), Box<dyn Error + Send + Sync>> {
    let (start, mut frames) = (now(), 0);
    while let Some(block) = recording.next_block()? {
        let pcm = Pcm::interleaved(block.sample_rate, block.channels, block.samples)?;
        let at = start.plus_nanos(nanos_of_samples(frames, block.sample_rate));
        frames += pcm.frames() as u64;
        while let Err(error) = sender.push(at, pcm) {
            match error {
                PushError::Full => thread::sleep(Duration::from_millis(5)),
                error => return Err(error.into()),
            }
        }
    }
    Ok(())
}
