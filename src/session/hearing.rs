//! From pushes to frames that were judged.
//!
//! In: audio with its time, and what was lost of it. Out: 16 kHz samples in the buffer, and each 20 ms frame of them told to
//! the segmenter; holes become silence or gaps.

use super::{InputError, SLICE, Session};
use crate::audio::{Pcm, Placement, Resampler};
use crate::caption::GapReason;
use crate::time::{SAMPLE_RATE, Timestamp, nanos_of_samples, samples_of_nanos};
use crate::vad::FRAME;

impl Session {
    pub(super) fn handle_audio(&mut self, at: Timestamp, pcm: Pcm<'_>) -> Result<(), InputError> {
        if self.ended {
            return Err(InputError::Ended);
        }
        if pcm.frames() == 0 {
            return Ok(());
        }
        let rate = pcm.rate();
        let placement = self.timeline.place(at, rate)?;
        // What the track begins with, here or behind lost audio, is dated by the push and not by what came before.
        let begins = self.timeline.is_at_anchor() && placement == Placement::Contiguous;
        if let Placement::Break { from, to } = placement {
            self.break_stream(from, to);
        }
        if self.resampler.as_ref().is_none_or(|resampler| resampler.rate() != rate) {
            self.finish_resampler();
            // `Pcm` holds rates that the resampler takes.
            self.resampler = Resampler::new(rate).ok();
            self.timeline.change_rate(self.buffer.end(), rate);
        }
        if begins || matches!(placement, Placement::Break { .. }) {
            self.timeline.anchor(self.buffer.end(), at, rate);
        }
        if let Placement::Fill { frames } = placement {
            self.timeline.fill(frames);
            self.feed_silence(frames);
            self.accounting.filled += samples_of_nanos(nanos_of_samples(frames, rate), SAMPLE_RATE);
        }
        // The anchor slews only between these slices, whatever the pushes: the same samples get the same times.
        let mut from = 0;
        while from < pcm.frames() {
            let slice = usize::try_from(self.timeline.frames_to_grid()).unwrap_or(SLICE);
            let to = from.saturating_add(slice).min(pcm.frames());
            let mut mono = std::mem::take(&mut self.mono);
            mono.clear();
            self.accounting.non_finite += pcm.mix_into(from, to, &mut mono);
            self.feed(&mono);
            self.mono = mono;
            let sliced_at = at.plus_nanos(nanos_of_samples(from as u64, rate));
            self.timeline.advance(sliced_at, (to - from) as u64);
            from = to;
        }
        Ok(())
    }

    pub(super) fn handle_lost(&mut self, from: Timestamp, to: Timestamp) -> Result<(), InputError> {
        if self.ended {
            return Err(InputError::Ended);
        }
        if to <= from {
            return Ok(());
        }
        let placement = self.timeline.place(from, SAMPLE_RATE)?;
        match (placement, self.timeline.end()) {
            (Placement::Break { from: end, .. }, _) | (Placement::Fill { .. }, Some(end)) => {
                self.break_stream(end, from);
            }
            _ => self.stop_stream(),
        }
        self.accounting.lost += samples_of_nanos(to.nanos_since(from), SAMPLE_RATE);
        // Stated early by no more than jitter, the gap still lies behind what came before it.
        let (from, to) = self.last_end.map_or((from, to), |end| (end.max(from), end.max(to)));
        self.declare_gap(from, to, GapReason::Overload);
        self.timeline.anchor(self.buffer.end(), to, SAMPLE_RATE);
        self.last_end = Some(to);
        Ok(())
    }

    /// Ends what is there: the sender's time goes on at `to`.
    fn break_stream(&mut self, from: Timestamp, to: Timestamp) {
        self.stop_stream();
        if to < from {
            self.declare_gap(from, to, GapReason::ClockRestarted);
        } else {
            // Where the anchor slewed back, what came before ends later than its samples.
            self.declare_gap(self.last_end.map_or(from, |end| end.clamp(from, to)), to, GapReason::NoAudio);
        }
        self.last_end = Some(to);
    }

    fn feed_silence(&mut self, mut frames: u64) {
        let mut zeros = std::mem::take(&mut self.mono);
        zeros.clear();
        zeros.resize(SLICE, 0.0);
        while frames > 0 {
            let now = frames.min(SLICE as u64);
            self.feed(&zeros[..now as usize]);
            frames -= now;
        }
        self.mono = zeros;
    }

    /// Resamples `mono` and hears every whole frame that results.
    fn feed(&mut self, mono: &[f32]) {
        let mut resampled = std::mem::take(&mut self.resampled);
        resampled.clear();
        if let Some(resampler) = &mut self.resampler {
            resampler.process(mono, &mut resampled);
        }
        self.hear(&resampled);
        self.resampled = resampled;
    }

    fn hear(&mut self, samples: &[f32]) {
        for piece in samples.chunks(SLICE) {
            self.buffer.extend(piece);
            while self.buffer.end().since(self.framed) >= FRAME as u64 {
                self.hear_frame(FRAME);
            }
        }
    }

    /// Judges the next frame, of which `held` samples are there and the rest is silence.
    fn hear_frame(&mut self, held: usize) {
        let lift = self.lift.factor(self.buffer.iter_from(self.framed).take(held));
        let mut frame = [0i16; FRAME];
        let mut energy = 0.0;
        for (quantised, sample) in frame.iter_mut().zip(self.buffer.iter_from(self.framed).take(held)) {
            energy += sample * sample;
            *quantised = (sample * lift * 32_768.0).round().clamp(-32_768.0, 32_767.0) as i16;
        }
        self.framed = self.framed.plus(held as u64);
        let speech = self.vad.is_speech(&frame);
        self.segmenter.push(speech, energy / FRAME as f32, &*self.vad, &mut self.boundaries);
        self.handle_boundaries();
        self.ask_early();
        self.ask_for_interim();
        self.buffer.forget_before(self.segmenter.needed_from());
    }

    fn finish_resampler(&mut self) {
        if let Some(mut resampler) = self.resampler.take() {
            let mut rest = std::mem::take(&mut self.resampled);
            rest.clear();
            resampler.finish(&mut rest);
            self.hear(&rest);
            self.resampled = rest;
        }
    }

    /// Hears what is still inside, closes the open caption and forgets what was heard.
    pub(super) fn stop_stream(&mut self) {
        self.finish_resampler();
        let end = self.buffer.end();
        let rest = end.since(self.framed);
        if rest > 0 {
            self.hear_frame(rest as usize);
        }
        self.segmenter.stop(end, end, &mut self.boundaries);
        self.handle_boundaries();
        self.vad.reset(self.config.vad_mode);
        self.accounting.silence += end.since(self.accounted_to);
        self.accounted_to = end;
    }
}
