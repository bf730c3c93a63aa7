//! Pushes of any shape at any time.

use std::collections::VecDeque;

use arbitrary::{Result, Unstructured};

use super::session::{Loudness, config, script};
use crate::asr::{Cancel, DecodeJob, Decoder as _, ScriptedDecoder};
use crate::audio::{Pcm, Samples};
use crate::session::{Input, Output, Session};
use crate::time::Timestamp;
use crate::vad::{Vad, WebRtcVad};

/// Pushes of one run.
const MOST_PUSHES: usize = 64;

/// Pushes what `data` describes into a session with the settings that it describes, and answers some of what is asked.
///
/// # Panics
/// Where a push that is refused changes anything, where samples are not accounted for, or where something is undecided when
/// all was answered.
pub fn pcm(data: &[u8]) {
    let mut u = Unstructured::new(data);
    let config = config(&mut u).unwrap_or_default();
    let is_loud = u.arbitrary().unwrap_or(false);
    let vad: Box<dyn Vad> = if is_loud { Box::new(Loudness) } else { Box::new(WebRtcVad::new(config.vad_mode)) };
    let mut track = Track { session: Session::with_vad("fuzz", config, vad), jobs: VecDeque::new() };
    let mut at = 0_i64;
    for _ in 0..MOST_PUSHES {
        if u.is_empty() {
            break;
        }
        // Where the bytes are over, so are the pushes.
        let Ok(now) = push(&mut u, &mut track, at) else { break };
        at = now;
    }
    track.session.handle_input(Input::End).expect("a track can always end");
    track.drain();
    track.answer(usize::MAX);
    assert!(track.session.is_finished(), "an ended track of which all was answered is finished");
    let accounting = track.session.accounting();
    assert_eq!(accounting.pending, 0, "nothing is undecided behind the end");
    assert_eq!(accounting.total(), track.session.end().0, "every sample is accounted for: {accounting:?}");
}

struct Track {
    session: Session,
    /// Asked and neither answered nor called off.
    jobs: VecDeque<DecodeJob>,
}

impl Track {
    /// Takes what the session has to say.
    fn drain(&mut self) {
        for _ in 0..100_000 {
            match self.session.poll_output() {
                Output::Wait(_) => {
                    let (accounting, end) = (self.session.accounting(), self.session.end());
                    assert_eq!(accounting.total(), end.0, "every sample is accounted for: {accounting:?}");
                    return;
                }
                Output::Decode(job) => self.jobs.push_back(job),
                Output::Cancel(id) => self.jobs.retain(|job| job.id != id),
                Output::Closed { .. } | Output::Event(_) => {}
            }
        }
        panic!("outputs have an end");
    }

    /// Answers so many jobs, or those that wait.
    fn answer(&mut self, count: usize) {
        for _ in 0..count {
            let Some(job) = self.jobs.pop_front() else { return };
            let result = ScriptedDecoder::new(script).decode(&job, &Cancel::new());
            let answer = Input::Decoded { job: job.id, result };
            self.session.handle_input(answer).expect("what was asked may be answered");
            self.drain();
        }
    }
}

fn push(u: &mut Unstructured<'_>, track: &mut Track, mut at: i64) -> Result<i64> {
    match u.int_in_range(0..=9u8)? {
        0 => at = u.arbitrary()?,
        1 => at = at.saturating_add(u.arbitrary::<i32>()?.into()),
        2 => at = at.saturating_add(i64::from(u.arbitrary::<i32>()?) * 1000),
        // Early, and all that waits.
        8 => track.answer(1),
        9 => track.answer(usize::MAX),
        _ => {}
    }
    let rate =
        if u.ratio(1, 16)? { u.arbitrary()? } else { *u.choose(&[16_000, 48_000, 8_000, 44_100, 192_000, 8_001])? };
    let channels = if u.ratio(1, 16)? { u.arbitrary::<u16>()?.into() } else { u.int_in_range(0..=8)? };
    let kind = u.int_in_range(0..=3u8)?;
    // A few bytes of description are many samples.
    let length = usize::from(u.arbitrary::<u16>()?) / if kind >= 2 { channels.max(1) } else { 1 };
    let described = usize::from(u.arbitrary::<u8>()?);
    let pattern = u.bytes(described.min(u.len()))?;
    let word = |i: usize| {
        let byte = |k: usize| pattern.get((4 * i + k) % pattern.len().max(1)).copied().unwrap_or_default();
        u32::from_le_bytes([byte(0), byte(1), byte(2), byte(3)])
    };
    let ints: Vec<i16> = (0..length).map(|i| word(i) as i16).collect();
    let floats: Vec<f32> = (0..length).map(|i| f32::from_bits(word(i))).collect();
    // One plane is sometimes shorter.
    let planes = |i: usize| length - usize::from(i == 1 && rate % 7 == 0 && length > 0);
    let (int_planes, float_planes): (Vec<&[i16]>, Vec<&[f32]>) =
        (0..channels.min(300)).map(|i| (&ints[..planes(i)], &floats[..planes(i)])).unzip();
    let samples = match kind {
        0 => Samples::I16(&ints),
        1 => Samples::F32(&floats),
        2 => Samples::PlanarI16(&int_planes),
        _ => Samples::PlanarF32(&float_planes),
    };
    let Ok(pcm) = Pcm::new(rate, channels, samples) else { return Ok(at) };
    let session = &mut track.session;
    let (before, end) = (session.accounting(), session.end());
    let frames = pcm.frames() as u64;
    match session.handle_input(Input::Audio { at: Timestamp::from_nanos(at), pcm }) {
        Ok(()) => at = Timestamp::from_nanos(at).plus_nanos(crate::time::nanos_of_samples(frames, rate)).as_nanos(),
        Err(_) => {
            assert_eq!((session.accounting(), session.end()), (before, end), "what is refused changes nothing");
            assert!(matches!(session.poll_output(), Output::Wait(_)), "what is refused says nothing");
        }
    }
    track.drain();
    Ok(at)
}
