//! `cuewire call`: a call whose participants are recordings.
//!
//! In: recordings. Out: captions as they come, and the transcript.

use std::collections::BTreeSet;
use std::io::{self, IsTerminal as _, Write as _};
use std::process::ExitCode;
use std::time::Duration;

use crossbeam_channel::{Receiver, RecvTimeoutError, Sender, unbounded};
use cuewire::audio::file::AudioFile;
use serde_json::{Value, json};

use crate::args::CallArgs;
use crate::client::{Client, hear, send_recording, speaker_of};
use crate::output::print;
use crate::run::Interrupt;
use crate::{FAILED, Failure, INTERRUPTED, complain};

/// Who starts, watches and stops.
const HOST: &str = "cuewire-call";
/// Longest wait for what is said behind the last participant's leave.
const PATIENCE: Duration = Duration::from_secs(60);
/// Characters of an interim that fit on a line.
const LINE_CHARS: usize = 110;

/// What threads say.
enum News {
    Event(Value),
    /// A recording is sent, or not to its end.
    Sent(Result<(), Failure>),
    /// The connection for events is gone.
    Gone(Result<(), Failure>),
}

pub(crate) fn run(args: &CallArgs) -> Result<ExitCode, Failure> {
    let interrupt = Interrupt::listen()?;
    let client = Client::new(&args.server)?;
    let cid = match &args.call {
        Some(cid) => cid.clone(),
        None => format!("default:call-{:016x}", getrandom::u64()?),
    };
    let path = format!("/call/{}", cid.replacen(':', "/", 1));
    if path.split('/').count() != 4 {
        return Err(Failure(format!("--call is `{cid}`: TYPE:ID is expected")));
    }
    let files = args.files.iter().map(|file| AudioFile::open(file).map(|opened| (speaker_of(file), opened)));
    let mut files = files.collect::<Result<Vec<_>, _>>()?;
    // A second one of the same name would take the first one's place.
    let mut speakers = BTreeSet::new();
    for (speaker, _) in &mut files {
        while !speakers.insert(speaker.clone()) {
            speaker.push('_');
        }
    }
    client.post(&path, "", None, &json!({"data": {"created_by_id": HOST}}))?;
    let (mut socket, connection) = client.events(HOST)?;
    // Watches the call.
    client.post(&path, &format!("&connection_id={connection}"), Some(HOST), &json!({}))?;
    let start = json!({"language": args.language.to_string(), "enable_closed_captions": true});
    client.post(&format!("{path}/start_transcription"), "", None, &start)?;

    let (news, heard) = unbounded();
    std::thread::spawn({
        let news = news.clone();
        move || {
            // What is no JSON is no event.
            let event = |text: &str| News::Event(serde_json::from_str(text).unwrap_or_default());
            let ended = hear(&mut socket, |text, _| news.send(event(text)).is_ok());
            // Where nobody listens any more, the command is over.
            let _ = news.send(News::Gone(ended));
        }
    });
    for (speaker, file) in files {
        speak(&client, &cid, speaker, file, args.fast, &interrupt, &news);
    }
    let shown = follow(&client, &path, &heard, speakers)?;
    Ok(match (interrupt.is_asked(), shown) {
        (true, _) => ExitCode::from(INTERRUPTED),
        (false, true) => ExitCode::SUCCESS,
        (false, false) => ExitCode::from(FAILED),
    })
}

/// A participant, on a thread of their own.
fn speak(
    client: &Client,
    cid: &str,
    speaker: String,
    mut file: AudioFile,
    fast: bool,
    interrupt: &Interrupt,
    news: &Sender<News>,
) {
    let (client, cid, interrupt, news) = (client.clone(), cid.to_string(), interrupt.clone(), news.clone());
    std::thread::spawn(move || {
        let sent = client
            .speak(&cid, &speaker, &file)
            .and_then(|mut socket| send_recording(&mut socket, &mut file, fast, || interrupt.is_asked()));
        let sent = sent.map_err(|Failure(why)| Failure(format!("{speaker}: {why}")));
        // Where nobody listens any more, the command is over.
        let _ = news.send(News::Sent(sent));
    });
}

/// Shows what is said until the transcript is there; whether all went well.
fn follow(client: &Client, path: &str, news: &Receiver<News>, speakers: BTreeSet<String>) -> Result<bool, Failure> {
    let mut screen = Screen { is_terminal: io::stderr().is_terminal() };
    let (mut sending, mut here, mut is_stopped, mut is_good) = (speakers.len(), speakers, false, true);
    loop {
        // While recordings are sent, there is nothing to wait for but the news.
        let patience = if sending > 0 { Duration::from_secs(24 * 3600) } else { PATIENCE };
        let next = match news.recv_timeout(patience) {
            Ok(next) => next,
            Err(RecvTimeoutError::Timeout) => return Err(Failure("the server says nothing more".into())),
            Err(RecvTimeoutError::Disconnected) => return Err(Failure("the connection is gone".into())),
        };
        match next {
            News::Event(event) => match event["type"].as_str().unwrap_or_default() {
                "call.closed_caption_interim" => screen.interim(&event["closed_caption"]),
                "call.closed_caption" => screen.caption(&event["closed_caption"]),
                "call.session_participant_left" => {
                    here.remove(event["participant"]["user"]["id"].as_str().unwrap_or_default());
                }
                "call.transcription_failed" | "call.closed_captions_failed" => {
                    complain(&format!("recognition failed: {}", event["error"].as_str().unwrap_or_default()));
                    is_good = false;
                }
                "call.transcription_ready" => {
                    let url = event["call_transcription"]["url"].as_str().unwrap_or_default();
                    print(&client.fetch(url)?)?;
                    return Ok(is_good);
                }
                _ => {}
            },
            News::Sent(sent) => {
                sending -= 1;
                if let Err(Failure(why)) = sent {
                    complain(&why);
                    is_good = false;
                    // Who could not join does not leave either.
                    if let Some((speaker, _)) = why.split_once(": ") {
                        here.remove(speaker);
                    }
                }
            }
            News::Gone(Ok(())) => return Err(Failure("the server has closed the connection".into())),
            News::Gone(Err(error)) => return Err(error),
        }
        if sending == 0 && here.is_empty() && !is_stopped {
            is_stopped = true;
            let stop = json!({"stop_closed_captions": true});
            client.post(&format!("{path}/stop_transcription"), "", None, &stop)?;
        }
    }
}

/// Standard error, with one line that changes on a terminal.
struct Screen {
    is_terminal: bool,
}

impl Screen {
    fn line(caption: &Value) -> String {
        let field = |name: &str| caption[name].as_str().unwrap_or_default();
        format!("{}: {}", field("speaker_id"), field("text"))
    }

    fn interim(&mut self, caption: &Value) {
        if self.is_terminal {
            let line = Self::line(caption);
            let skipped = line.chars().count().saturating_sub(LINE_CHARS);
            let tail: String = line.chars().skip(skipped).collect();
            // A terminal that is gone shows nothing.
            let _ = write!(io::stderr(), "\r\x1b[2K\x1b[2m{tail}\x1b[0m");
        }
    }

    fn caption(&mut self, caption: &Value) {
        let clear = if self.is_terminal { "\r\x1b[2K" } else { "" };
        let _ = writeln!(io::stderr(), "{clear}{}", Self::line(caption));
    }
}
