//! What a codec put before and behind the audio is cut off again.
//!
//! In: decoded blocks in order. Out: the same blocks without the encoder's delay and padding.

/// Frames at the start and the end that are not the recording. A frame is one sample of each channel.
#[derive(Debug, Default)]
pub(super) struct Trim {
    skip: u64,
    end: End,
}

/// Where the audio ends.
#[derive(Debug, Default)]
enum End {
    /// With the stream.
    #[default]
    Open,
    /// After so many frames more.
    Hard(u64),
    /// After so many frames more, unless much more follows: then the header counted only a part (files that were
    /// joined), and what was held back is audio.
    Soft { left: u64, held: Vec<f32>, most: usize },
}

impl Trim {
    /// Drops the first `skip` frames.
    pub(super) fn skip(skip: u64) -> Self {
        Self { skip, end: End::Open }
    }

    /// Ends after `len` frames.
    pub(super) fn hard_end(mut self, len: u64) -> Self {
        self.end = End::Hard(len);
        self
    }

    /// Ends after `len` frames, unless more than `most` follow.
    pub(super) fn soft_end(mut self, len: u64, most: usize) -> Self {
        self.end = End::Soft { left: len, held: Vec::new(), most };
        self
    }

    /// Cuts `block`, `[frames, channels]`.
    pub(super) fn apply(&mut self, block: &mut Vec<f32>, channels: usize) {
        let channels = channels.max(1);
        if self.skip > 0 {
            let frames = (block.len() / channels).min(usize::try_from(self.skip).unwrap_or(usize::MAX));
            block.drain(..frames * channels);
            self.skip -= frames as u64;
        }
        let frames = block.len() / channels;
        let within = |left: u64| frames.min(usize::try_from(left).unwrap_or(usize::MAX));
        match &mut self.end {
            End::Open => {}
            End::Hard(left) => {
                let keep = within(*left);
                *left -= keep as u64;
                block.truncate(keep * channels);
            }
            End::Soft { left, held, most } => {
                let keep = within(*left);
                *left -= keep as u64;
                held.extend_from_slice(&block[keep * channels..]);
                block.truncate(keep * channels);
                if held.len() > *most * channels {
                    block.append(held);
                    self.end = End::Open;
                }
            }
        }
    }

    /// Whether nothing that follows can be heard.
    pub(super) fn is_over(&self) -> bool {
        matches!(self.end, End::Hard(0))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// 0, 1, 2, … in blocks of `size` frames of two channels.
    fn run(mut trim: Trim, total: usize, size: usize) -> Vec<f32> {
        let all: Vec<f32> = (0..total).flat_map(|frame| [frame as f32, frame as f32]).collect();
        let mut out = Vec::new();
        for block in all.chunks(size * 2) {
            let mut block = block.to_vec();
            trim.apply(&mut block, 2);
            out.extend(block.chunks(2).map(|frame| frame[0]));
        }
        out
    }

    #[test]
    fn blocks_of_any_size_are_cut_alike() {
        let range = |from: usize, to: usize| (from..to).map(|frame| frame as f32).collect::<Vec<_>>();
        for size in [1, 7, 64, 1000] {
            assert_eq!(run(Trim::skip(10), 100, size), range(10, 100));
            assert_eq!(run(Trim::skip(200), 100, size), range(0, 0));
            assert_eq!(run(Trim::skip(10).hard_end(50), 100, size), range(10, 60));
            assert_eq!(run(Trim::skip(10).soft_end(50, 45), 100, size), range(10, 60));
            // Much more than was declared: all of it is audio.
            assert_eq!(run(Trim::skip(10).soft_end(50, 30), 100, size), range(10, 100));
        }
    }
}
