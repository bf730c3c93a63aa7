//! What a session makes of a stream that loses packets.

use super::*;
use crate::session::{Input, Session};
use crate::{Config, Output};

/// A session as a server has it, with nothing recognised.
struct Listener {
    session: Session,
    heard: Heard,
}

impl Listener {
    fn listen<'a>(packets: impl IntoIterator<Item = &'a Sent>) -> Self {
        let session = Session::new("alice", Config::default());
        let (mut receiver, mut listener) = (receiver(), Self { session, heard: Heard::default() });
        for sent in packets {
            receiver.handle_packet(sent.packet()).unwrap();
            listener.drain(&mut receiver);
        }
        receiver.flush();
        listener.drain(&mut receiver);
        listener
    }

    fn drain(&mut self, receiver: &mut RtpReceiver) {
        while let Some(Piece { at, pcm }) = receiver.poll_output() {
            self.heard.pieces.push((at, pcm.frames()));
            pcm.mix_into(0, pcm.frames(), &mut self.heard.samples);
            self.session.handle_input(Input::Audio { at, pcm }).unwrap();
            while !matches!(self.session.poll_output(), Output::Wait(_)) {}
        }
        self.heard.stats = receiver.stats();
    }
}

#[test]
fn a_session_accounts_for_the_time_of_lost_packets() {
    let mut sent = voice_stream(300);
    for (index, sent) in sent.iter_mut().enumerate() {
        // They come by up to 110 ms late, as over a mobile network.
        sent.at = sent.at.plus_nanos((index as i64 * 7919 % 12) * 10 * MS);
    }
    let sent = sent;
    for (lost, filled) in [(0..0, 0), (100..101, 0), (100..106, 0), (100..107, 7), (100..150, 50), (20..160, 140)] {
        let heard =
            Listener::listen(sent.iter().enumerate().filter(|(at, _)| !lost.contains(at)).map(|(_, sent)| sent));
        let accounting = heard.session.accounting();
        // What is filled is right to what the anchors, which slew, may be apart.
        assert!(accounting.filled.abs_diff(filled * 320) <= 64, "{lost:?}: {}", accounting.filled);
        assert_eq!(accounting.total() - accounting.filled, (300 - filled) * 320, "{lost:?}");
    }
    // 4 s are no silence but a gap: 200 packets.
    let heard = Listener::listen(sent[..50].iter().chain(&sent[250..]));
    let accounting = heard.session.accounting();
    assert_eq!((accounting.filled, accounting.total()), (0, 100 * 320));
    let jumps = heard.heard.jumps();
    assert!(matches!(jumps[..], [(16_000, jump)] if (jump - 4_000 * MS).abs() < MS), "{jumps:?}");
}

/// All English recordings of the repository, 16 kHz.
#[cfg(feature = "files")]
fn speech() -> Vec<f32> {
    let folder = std::path::Path::new(env!("CARGO_MANIFEST_DIR")).join("testdata/speech");
    let mut samples = Vec::new();
    for name in ["austen-0880", "en-agent-alreadyon", "en-queue-periodic-announce", "en-tt-monkeysintro"] {
        let mut file = crate::audio::file::AudioFile::open(&folder.join(name).with_extension("flac")).unwrap();
        while let Some(block) = file.next_block().unwrap() {
            assert_eq!((block.sample_rate, block.channels), (16_000, 1));
            samples.extend_from_slice(block.samples);
        }
    }
    samples
}

#[cfg(feature = "files")]
#[test]
fn speech_survives_a_bad_network() {
    let mut random = 1_u64;
    let mut random = move |below: u64| {
        random = random.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1_442_695_040_888_963_407);
        (random >> 33) % below
    };
    let mut encoder = OpusEncoder::new(16_000, 1, Application::Voip).unwrap();
    (encoder.bitrate_bps, encoder.use_inband_fec, encoder.packet_loss_perc) = (24_000, true, 10);
    let mut buffer = vec![0; 4000];
    let payloads: Vec<Vec<u8>> = speech()
        .chunks_exact(320)
        .map(|pcm| {
            let bytes = encoder.encode(pcm, 320, &mut buffer).unwrap();
            buffer[..bytes].to_vec()
        })
        .collect();
    let (count, sent) = (payloads.len(), stream(&payloads, 20, 65_000, 12_345));
    // Neighbours change places, and one packet in twenty is lost.
    let mut order: Vec<(i64, usize)> = (0..count).map(|index| (index as i64 * 20 + random(45) as i64, index)).collect();
    order.sort_unstable();
    let arrived: Vec<Sent> = order
        .iter()
        .filter(|(_, index)| [0, count - 1].contains(index) || random(20) > 0)
        .map(|&(ms, index)| Sent { at: at_ms(ms), ..sent[index].clone() })
        .collect();
    let (whole, listener) = (hear(&sent), Listener::listen(&arrived));
    let ReceiverStats { lost, late, stray, restarts, concealed_samples, recovered_samples, .. } = listener.heard.stats;
    assert_eq!((lost, late, stray, restarts), ((count - arrived.len()) as u64, 0, 0, 0));
    assert_eq!(concealed_samples + recovered_samples, lost * 320);
    assert!(recovered_samples > concealed_samples, "{recovered_samples} recovered, {concealed_samples} concealed");
    assert_eq!(listener.session.accounting().total(), count as u64 * 320);
    let error = error(&listener.heard.samples, &whole.samples);
    assert!(error < 0.3, "{error}");
}
