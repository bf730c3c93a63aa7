//! What both commands need while they run: Ctrl-C, standard input that does not block it, a session's outputs.

use std::io::{self, Read};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};

use crossbeam_channel::{Receiver, bounded, select};
use cuewire::asr::DecodeError;
use cuewire::caption::CaptionEvent;
use cuewire::session::{Output, Session};
use cuewire::time::Timestamp;

use crate::recognizer::{Recognizer, Track};
use crate::{INTERRUPTED, complain};

/// Bytes read from standard input at a time: 20 ms of 48 kHz mono 16-bit audio, doubled.
const BLOCK_BYTES: usize = 4096;

/// Ctrl-C and SIGTERM: the first asks to finalise, the second ends the process.
#[derive(Clone)]
pub(crate) struct Interrupt {
    asked: Arc<AtomicBool>,
    signal: Receiver<()>,
}

impl Interrupt {
    pub(crate) fn listen() -> Result<Self, ctrlc::Error> {
        let asked = Arc::new(AtomicBool::new(false));
        let (sender, signal) = bounded(1);
        let flag = asked.clone();
        ctrlc::set_handler(move || {
            if flag.swap(true, Ordering::SeqCst) {
                std::process::exit(INTERRUPTED.into());
            }
            complain("finalising what was heard; once more ends at once");
            // Never full: this is the only message.
            let _ = sender.try_send(());
        })?;
        Ok(Self { asked, signal })
    }

    pub(crate) fn is_asked(&self) -> bool {
        self.asked.load(Ordering::SeqCst)
    }

    /// Receives once when Ctrl-C is pressed.
    pub(crate) fn signal(&self) -> &Receiver<()> {
        &self.signal
    }
}

/// Reads standard input on a thread of its own, so that nobody waits for it who has other things to do.
pub(crate) fn stdin_blocks() -> io::Result<Receiver<io::Result<Vec<u8>>>> {
    let (sender, blocks) = bounded(16);
    std::thread::Builder::new().name("cuewire-stdin".into()).spawn(move || {
        let mut stdin = io::stdin().lock();
        loop {
            let mut block = vec![0; BLOCK_BYTES];
            let read = match stdin.read(&mut block) {
                Ok(0) => return,
                Ok(n) => {
                    block.truncate(n);
                    Ok(block)
                }
                Err(error) if error.kind() == io::ErrorKind::Interrupted => continue,
                Err(error) => Err(error),
            };
            let failed = read.is_err();
            if sender.send(read).is_err() || failed {
                return;
            }
        }
    })?;
    Ok(blocks)
}

/// Standard input as a reader that ends at Ctrl-C.
pub(crate) struct InterruptibleStdin {
    blocks: Receiver<io::Result<Vec<u8>>>,
    interrupt: Interrupt,
    block: io::Cursor<Vec<u8>>,
}

impl InterruptibleStdin {
    pub(crate) fn new(interrupt: &Interrupt) -> io::Result<Self> {
        Ok(Self { blocks: stdin_blocks()?, interrupt: interrupt.clone(), block: io::Cursor::default() })
    }
}

impl Read for InterruptibleStdin {
    fn read(&mut self, out: &mut [u8]) -> io::Result<usize> {
        loop {
            let n = self.block.read(out)?;
            if n > 0 || out.is_empty() || self.interrupt.is_asked() {
                return Ok(n);
            }
            select! {
                recv(self.blocks) -> block => match block {
                    Ok(block) => self.block = io::Cursor::new(block?),
                    Err(_) => return Ok(0),
                },
                recv(self.interrupt.signal) -> _ => return Ok(0),
            }
        }
    }
}

/// Passes a session's outputs on: jobs to the workers, events to `on_event`. Returns when the session wants to wake up.
pub(crate) fn drain(
    session: &mut Session,
    track: Track,
    recognizer: &mut Recognizer,
    mut on_event: impl FnMut(CaptionEvent),
) -> Option<Timestamp> {
    loop {
        match session.poll_output() {
            Output::Decode(job) => recognizer.ask(track, job),
            Output::Cancel(job) => recognizer.cancel(track, job),
            Output::Event(event) => on_event(event),
            Output::Closed { .. } => {}
            Output::Wait(wake_up) => return wake_up,
        }
    }
}

/// Says that a job failed, unless it was called off: its caption becomes a gap. Whether it failed.
pub(crate) fn warn_of_failure(name: &str, error: &DecodeError) -> bool {
    let failed = *error != DecodeError::Cancelled;
    if failed {
        complain(&format!("{name}: {error}"));
    }
    failed
}
