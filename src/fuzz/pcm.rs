//! Pushes of any shape at any time.

use arbitrary::{Result, Unstructured};

use crate::audio::{Pcm, Samples};
use crate::config::Config;
use crate::session::{Input, Output, Session};
use crate::time::Timestamp;

/// Pushes of one run.
const MOST_PUSHES: usize = 64;

/// Pushes what `data` describes into a session.
///
/// # Panics
/// Where a push that is refused changes anything, or where samples are not accounted for.
pub fn pcm(data: &[u8]) {
    let mut session = Session::new("fuzz", Config::default());
    let mut u = Unstructured::new(data);
    let mut at = 0_i64;
    for _ in 0..MOST_PUSHES {
        if u.is_empty() {
            break;
        }
        // Where the bytes are over, so are the pushes.
        let Ok(now) = push(&mut u, &mut session, at) else { break };
        at = now;
    }
    session.handle_input(Input::End).expect("a track can always end");
    while !matches!(session.poll_output(), Output::Wait(_)) {}
    let accounting = session.accounting();
    assert_eq!(accounting.total(), session.end().0, "every sample is accounted for: {accounting:?}");
}

fn push(u: &mut Unstructured<'_>, session: &mut Session, mut at: i64) -> Result<i64> {
    match u.int_in_range(0..=9u8)? {
        0 => at = u.arbitrary()?,
        1 => at = at.saturating_add(u.arbitrary::<i32>()?.into()),
        2 => at = at.saturating_add(i64::from(u.arbitrary::<i32>()?) * 1000),
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
    let (before, end) = (session.accounting(), session.end());
    let frames = pcm.frames() as u64;
    match session.handle_input(Input::Audio { at: Timestamp::from_nanos(at), pcm }) {
        Ok(()) => at = Timestamp::from_nanos(at).plus_nanos(crate::time::nanos_of_samples(frames, rate)).as_nanos(),
        Err(_) => {
            assert_eq!((session.accounting(), session.end()), (before, end), "what is refused changes nothing");
            assert!(matches!(session.poll_output(), Output::Wait(_)), "what is refused says nothing");
        }
    }
    let mut most = 100_000;
    while !matches!(session.poll_output(), Output::Wait(_)) {
        most -= 1;
        assert!(most > 0, "outputs have an end");
    }
    assert_eq!(session.accounting().total(), session.end().0, "every sample is accounted for");
    Ok(at)
}
