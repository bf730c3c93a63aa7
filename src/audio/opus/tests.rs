use super::*;
use opus_pure::{Application, OpusEncoder, OpusMSEncoder};

/// 20 ms packets of a 440 Hz tone, mono.
fn packets(count: usize, application: Application) -> Vec<Vec<u8>> {
    let mut encoder = OpusEncoder::new(48_000, 1, application).unwrap();
    encoder.bitrate_bps = 24_000;
    let mut buffer = vec![0; 4000];
    (0..count)
        .map(|packet| {
            let tone = tone(packet * 960, 960);
            let bytes = encoder.encode(&tone, 960, &mut buffer).unwrap();
            buffer[..bytes].to_vec()
        })
        .collect()
}

fn tone(from: usize, frames: usize) -> Vec<f32> {
    let phase = |frame: usize| frame as f32 * 440.0 * std::f32::consts::TAU / 48_000.0;
    (from..from + frames).map(|frame| 0.5 * phase(frame).sin()).collect()
}

fn level(samples: &[f32]) -> f32 {
    (samples.iter().map(|sample| sample * sample).sum::<f32>() / samples.len() as f32).sqrt()
}

#[test]
fn decoders_can_move_to_another_thread() {
    fn check<T: Send + 'static>() {}
    check::<OpusPacketDecoder>();
    check::<Box<dyn PacketDecoder>>();
}

#[test]
fn every_rate_and_channel_count_gives_the_packet_in_full() {
    let stream = packets(25, Application::Voip);
    for sample_rate in OPUS_RATES {
        for channels in [1, 2] {
            let mut decoder = OpusPacketDecoder::new(sample_rate, channels).unwrap();
            let mut output = vec![0.0; decoder.max_frames() * channels];
            for packet in &stream {
                assert_eq!(decoder.packet_frames(packet).unwrap(), sample_rate as usize / 50);
                let frames = decoder.decode(packet, &mut output).unwrap();
                assert_eq!(frames, sample_rate as usize / 50);
            }
            let last = &output[..sample_rate as usize / 50 * channels];
            assert!((0.25..0.45).contains(&level(last)), "{sample_rate} Hz, {channels}: {}", level(last));
        }
    }
}

#[test]
fn wrong_shapes_and_sizes_are_named() {
    for (sample_rate, channels) in [(44_100, 1), (0, 1), (48_000, 0), (48_000, 9)] {
        let error = OpusPacketDecoder::new(sample_rate, channels).unwrap_err();
        assert_eq!(error, PacketError::Shape { sample_rate, channels });
        assert!(error.to_string().contains("48000"));
    }
    let mut decoder = OpusPacketDecoder::new(48_000, 2).unwrap();
    let mut output = vec![0.0; 5760 * 2];
    assert!(matches!(decoder.decode(&[], &mut output), Err(PacketError::Damaged { bytes: 0, .. })));
    assert!(matches!(decoder.decode(&[0xff, 0xff], &mut output), Err(PacketError::Damaged { bytes: 2, .. })));
    let packet = &packets(1, Application::Audio)[0];
    assert_eq!(decoder.decode(packet, &mut output[..100]), Err(PacketError::Buffer { needed: 1920, provided: 100 }));
    assert_eq!(decoder.conceal(5761, &mut output), Err(PacketError::TooLong { frames: 5761, most: 5760 }));
    assert_eq!(decoder.conceal(0, &mut output), Ok(0));
}

#[test]
fn a_loss_goes_on_with_the_sound_and_fades() {
    for application in [Application::Voip, Application::Audio] {
        let stream = packets(50, application);
        let mut decoder = OpusPacketDecoder::new(48_000, 1).unwrap();
        let mut output = vec![0.0; decoder.max_frames()];
        for packet in &stream[..25] {
            decoder.decode(packet, &mut output).unwrap();
        }
        let before = output[959];
        assert_eq!(decoder.conceal(960, &mut output), Ok(960));
        assert!((output[0] - before).abs() < 0.1, "{application:?}: {before} to {}", output[0]);
        assert!(level(&output[..960]) > 0.05, "{application:?}: {}", level(&output[..960]));
        let mut last = 1.0;
        for _ in 0..10 {
            assert_eq!(decoder.conceal(5760, &mut output), Ok(5760));
            last = level(&output);
        }
        assert!(last < 0.03, "{application:?}: {last}");
        // The stream recovers.
        for packet in &stream[35..] {
            decoder.decode(packet, &mut output).unwrap();
        }
        assert!((0.25..0.45).contains(&level(&output[..960])));
    }
}

#[test]
fn a_reset_decoder_is_as_a_new_one() {
    let stream = packets(20, Application::Voip);
    let mut fresh = OpusPacketDecoder::new(16_000, 1).unwrap();
    let mut used = OpusPacketDecoder::new(16_000, 1).unwrap();
    let (mut a, mut b) = (vec![0.0; 1920], vec![0.0; 1920]);
    for packet in stream.iter().rev() {
        used.decode(packet, &mut b).unwrap();
    }
    used.reset();
    for packet in &stream {
        fresh.decode(packet, &mut a).unwrap();
        used.decode(packet, &mut b).unwrap();
        assert_eq!(a[..320], b[..320]);
    }
}

#[test]
fn the_gain_is_in_256ths_of_a_decibel() {
    let stream = packets(20, Application::Audio);
    let mut plain = OpusPacketDecoder::new(48_000, 1).unwrap();
    let mut quiet = OpusPacketDecoder::new(48_000, 1).unwrap().with_gain_q8(-6 * 256);
    let (mut a, mut b) = (vec![0.0; 5760], vec![0.0; 5760]);
    for packet in &stream {
        plain.decode(packet, &mut a).unwrap();
        quiet.decode(packet, &mut b).unwrap();
    }
    let ratio = level(&b[..960]) / level(&a[..960]);
    assert!((ratio - 0.5012).abs() < 0.001, "{ratio}");
}

/// A voice: harmonics of a pitch that glides, in syllables.
pub(in crate::audio) fn voice(from: usize, frames: usize) -> Vec<f32> {
    (from..from + frames)
        .map(|frame| {
            let t = frame as f32 / 48_000.0;
            let phase = std::f32::consts::TAU * (120.0 * t - 5.0 * (t * 3.0).cos());
            let pulse: f32 = (1..30).map(|harmonic| (phase * harmonic as f32).sin() / harmonic as f32).sum();
            0.2 * pulse * (0.6 + 0.4 * (t * 5.0 * std::f32::consts::TAU).sin())
        })
        .collect()
}

#[test]
fn a_lost_packet_is_recovered_from_the_copy_in_the_next() {
    for (frames, channels, samples_48k) in [(160, 1, 480), (320, 1, 960), (960, 1, 2880), (320, 2, 960)] {
        let mut encoder = OpusEncoder::new(48_000, channels, Application::Voip).unwrap();
        encoder.bitrate_bps = 24_000;
        encoder.signal_type = Some(opus_pure::Signal::Voice);
        encoder.use_inband_fec = true;
        encoder.packet_loss_perc = 20;
        encoder.max_bandwidth = opus_pure::Bandwidth::Wideband;
        let mut buffer = vec![0; 4000];
        let stream: Vec<Vec<u8>> = (0..200)
            .map(|packet| {
                let mono = voice(packet * samples_48k, samples_48k);
                let pcm: Vec<f32> = mono.iter().flat_map(|&sample| vec![sample; channels]).collect();
                let bytes = encoder.encode(&pcm, samples_48k, &mut buffer).unwrap();
                buffer[..bytes].to_vec()
            })
            .collect();
        let (mut whole, mut recovering, mut concealing) = (
            OpusPacketDecoder::new(16_000, 1).unwrap(),
            OpusPacketDecoder::new(16_000, 1).unwrap(),
            OpusPacketDecoder::new(16_000, 1).unwrap(),
        );
        let (mut a, mut b) = (vec![0.0; 1920], vec![0.0; 1920]);
        let (mut recovered, mut invented, mut times) = (0.0, 0.0, 0);
        for (index, packet) in stream.iter().enumerate() {
            whole.decode(packet, &mut a).unwrap();
            let next = stream.get(index + 1).filter(|next| recovering.fec_frames(next) > 0);
            if let Some(next) = next.filter(|_| index % 5 == 4) {
                assert_eq!(recovering.decode_fec(next, &mut b), Ok(frames));
                let error = |b: &[f32]| level(&a[..frames].iter().zip(b).map(|(a, b)| a - b).collect::<Vec<_>>());
                recovered += error(&b[..frames]);
                concealing.conceal(frames, &mut b).unwrap();
                invented += error(&b[..frames]);
                times += 1;
            } else {
                recovering.decode(packet, &mut b).unwrap();
                concealing.decode(packet, &mut b).unwrap();
            }
        }
        assert!(
            times >= 8 && recovered < 0.5 * invented,
            "{frames}, {channels}: {times} times, {recovered} to {invented}"
        );
    }
}

#[test]
fn only_a_packet_that_carries_a_copy_is_asked_for_it() {
    let mut decoder = OpusPacketDecoder::new(16_000, 1).unwrap();
    let (silk_20, silk_60, hybrid_20, celt_20, stereo) = (9 << 3, 11 << 3, 15 << 3, 31 << 3, 4);
    for (packet, frames) in [
        (&[][..], 0),
        (&[silk_20], 0),
        (&[silk_20, 0xbf, 0xff], 0),
        (&[silk_20, 0x40, 0], 320),
        (&[hybrid_20, 0x40, 0], 320),
        (&[celt_20, 0xff, 0], 0),
        (&[silk_60, 0xef, 0], 0),
        (&[silk_60, 0x10, 0], 960),
        (&[silk_20, 0x10, 0], 0),
        (&[silk_20 | stereo, 0x10, 0], 320),
        (&[silk_60 | stereo, 0x01, 0], 960),
        (&[silk_20 | 1, 0x40, 0], 320),
        (&[silk_20 | 2, 1, 0x40, 0], 320),
        (&[silk_20 | 2, 0, 0x40, 0], 0),
        (&[silk_20 | 2, 252, 0, 0x40, 0], 320),
        (&[silk_20 | 3, 2, 0x40, 0], 320),
        (&[silk_20 | 3, 0x42, 2, 0x40, 0, 0, 0], 320),
        (&[silk_20 | 3, 0x41, 255, 3, 0x40, 0], 320),
        (&[silk_20 | 3, 0x83, 1, 1, 0x40, 0, 0], 320),
        (&[silk_20 | 3, 0x83, 0, 1, 0x40, 0], 0),
        (&[silk_20 | 3, 0x83], 0),
        (&[silk_20 | 3], 0),
    ] {
        assert_eq!(decoder.fec_frames(packet), frames, "{packet:x?}");
    }
    assert_eq!(decoder.decode_fec(&[celt_20, 0xff, 0], &mut []), Ok(0));
    assert_eq!(decoder.decode_fec(&[silk_20, 0x40, 0], &mut []), Err(PacketError::Buffer { needed: 320, provided: 0 }));
    assert_eq!(OpusPacketDecoder::new(48_000, 6).unwrap().fec_frames(&[silk_20, 0x40, 0]), 0);
}

#[test]
fn a_packet_without_sound_is_quiet() {
    for application in [Application::Voip, Application::Audio] {
        let stream = packets(25, application);
        let mut decoder = OpusPacketDecoder::new(16_000, 1).unwrap();
        let mut output = vec![0.0; 1920];
        for packet in &stream {
            decoder.decode(packet, &mut output).unwrap();
        }
        for bytes in [1, 2] {
            for _ in 0..15 {
                assert_eq!(decoder.decode(&stream[24][..bytes], &mut output), Ok(320));
            }
            assert!(level(&output[..320]) < 0.02, "{application:?}, {bytes}: {}", level(&output[..320]));
        }
    }
}

#[test]
fn surround_decodes_and_conceals_each_channel() {
    let mut encoder = OpusMSEncoder::new(48_000, 6, 1, Application::Audio).unwrap();
    let mut decoder = OpusPacketDecoder::new(48_000, 6).unwrap();
    let mut buffer = vec![0; 20_000];
    let mut output = vec![0.0; 5760 * 6];
    for packet in 0..25 {
        // The tone in the second channel only.
        let pcm: Vec<f32> =
            tone(packet * 960, 960).iter().flat_map(|&sample| [0.0, sample, 0.0, 0.0, 0.0, 0.0]).collect();
        let bytes = encoder.encode(&pcm, 960, &mut buffer).unwrap();
        assert_eq!(decoder.decode(&buffer[..bytes], &mut output), Ok(960));
    }
    let levels = |output: &[f32]| -> Vec<f32> {
        (0..6).map(|channel| level(&output.iter().skip(channel).step_by(6).copied().collect::<Vec<_>>())).collect()
    };
    let decoded = levels(&output[..960 * 6]);
    assert!(decoded[1] > 0.2 && decoded.iter().enumerate().all(|(at, &level)| at == 1 || level < 0.05), "{decoded:?}");
    decoder.conceal(960, &mut output).unwrap();
    let concealed = levels(&output[..960 * 6]);
    let loudest = (0..6).max_by(|&a, &b| concealed[a].total_cmp(&concealed[b]));
    assert!(loudest == Some(1) && concealed[1] > 0.05, "{concealed:?}");
}

/// Damaged packets are refused or decoded to something finite; never more than they may hold, never a panic.
#[test]
fn damaged_packets_do_no_harm() {
    let mut seed = 1_u64;
    let mut random = move || {
        seed ^= seed << 13;
        seed ^= seed >> 7;
        seed ^= seed << 17;
        seed
    };
    let stream = [packets(40, Application::Voip), packets(40, Application::Audio)].concat();
    for (rate, channels) in [(48_000, 1), (16_000, 1), (48_000, 2), (48_000, 3), (48_000, 6)] {
        let mut decoder = OpusPacketDecoder::new(rate, channels).unwrap();
        let mut output = vec![0.0; decoder.max_frames() * channels];
        for round in 0..3000 {
            let mut packet = stream[round % stream.len()].clone();
            for _ in 0..random() % 8 {
                let at = random() as usize % packet.len();
                packet[at] ^= 1 << (random() % 8);
            }
            if random().is_multiple_of(4) {
                packet.truncate(random() as usize % packet.len());
            }
            if random().is_multiple_of(4)
                && let Ok(frames) = decoder.decode_fec(&packet, &mut output)
            {
                assert_eq!(frames, decoder.fec_frames(&packet));
                assert!(output[..frames * channels].iter().all(|sample| sample.is_finite()));
            }
            match decoder.decode(&packet, &mut output) {
                Ok(frames) => assert!(output[..frames * channels].iter().all(|sample| sample.is_finite())),
                Err(_) => {
                    decoder.conceal(random() as usize % (rate as usize * 120 / 1000 + 1), &mut output).unwrap();
                    assert!(output.iter().all(|sample| sample.is_finite()));
                }
            }
        }
    }
}
