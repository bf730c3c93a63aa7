//! What an SFU does with cuewire: Opus packets as they come from the network, of several participants.
//!
//! `cargo run --release --example sfu -- testdata/models/whisper-base-q8_0.gguf call.webm` takes each Opus track of a
//! recording (Matroska, WebM, Ogg or MP4) for a participant's RTP stream and forwards its packets at the pace at which they
//! were sent. On the way every fiftieth packet is lost, and one in twenty is overtaken by the next.

use std::collections::BTreeMap;
use std::error::Error;
use std::fs::File;
use std::sync::Arc;
use std::thread;
use std::time::{Duration, Instant, SystemTime, UNIX_EPOCH};

use cuewire::asr::whisper::WhisperModel;
use cuewire::audio::rtp::RtpPacket;
use cuewire::engine::{AudioSender, Engine, EngineConfig, EngineEvent, Subscription, TrackConfig};
use cuewire::{CaptionEvent, Timestamp};
use symphonia::core::codecs::CodecParameters;
use symphonia::core::codecs::audio::well_known::CODEC_ID_OPUS;
use symphonia::core::formats::FormatReader;
use symphonia::core::io::MediaSourceStream;
use symphonia::core::packet::Packet;
use symphonia::core::units::TimeBase;

/// One participant's stream, as a server keeps it.
struct Stream {
    sender: AudioSender,
    ssrc: u32,
    time_base: TimeBase,
    packets: u16,
    /// A packet that the next one overtakes.
    overtaken: Option<(u16, Packet)>,
}

fn main() -> Result<(), Box<dyn Error>> {
    let mut args = std::env::args().skip(1);
    let usage = "usage: sfu MODEL RECORDING (with Opus tracks)";
    let model = Arc::new(WhisperModel::load(args.next().ok_or(usage)?)?);
    let source = MediaSourceStream::new(Box::new(File::open(args.next().ok_or(usage)?)?), Default::default());
    let probe = symphonia::default::get_probe();
    let mut recording = probe.probe(&Default::default(), source, Default::default(), Default::default())?;

    let engine = Engine::start(EngineConfig::default(), model)?;
    let events = engine.subscribe();
    let mut streams = BTreeMap::new();
    for track in recording.tracks() {
        let is_opus =
            matches!(&track.codec_params, Some(CodecParameters::Audio(audio)) if audio.codec == CODEC_ID_OPUS);
        if let Some(time_base) = track.time_base.filter(|_| is_opus) {
            let (sender, _) = engine.add_track(TrackConfig::new(format!("participant {}", track.id)))?;
            // The sequence numbers are about to wrap around, as they do every 22 minutes.
            streams.insert(track.id, Stream { sender, ssrc: track.id, time_base, packets: 65_000, overtaken: None });
        }
    }
    let captions = thread::spawn({
        let participants = streams.len();
        move || show(&events, participants)
    });
    forward(&mut *recording, &mut streams)?;
    // Those who leave end their tracks.
    drop(streams);
    captions.join().map_err(|_| "the thread that shows captions panicked")?;
    engine.shutdown(Duration::from_secs(2));
    Ok(())
}

/// Forwards the packets of all streams as if they came now.
fn forward(recording: &mut dyn FormatReader, streams: &mut BTreeMap<u32, Stream>) -> Result<(), Box<dyn Error>> {
    let (start, utc) = (Instant::now(), SystemTime::now().duration_since(UNIX_EPOCH)?);
    while let Some(packet) = recording.next_packet()? {
        let Some(stream) = streams.get_mut(&packet.track_id) else { continue };
        let sent = stream.sent(&packet);
        thread::sleep(sent.saturating_sub(start.elapsed()));
        stream.packets = stream.packets.wrapping_add(1);
        let number = stream.packets;
        if number % 50 == 0 {
            continue;
        }
        if number % 20 == 7 {
            stream.overtaken = Some((number, packet));
            continue;
        }
        stream.push(utc + start.elapsed(), number, &packet)?;
        if let Some((number, packet)) = stream.overtaken.take() {
            stream.push(utc + start.elapsed(), number, &packet)?;
        }
    }
    Ok(())
}

impl Stream {
    /// When a packet was sent, after the first of the recording.
    fn sent(&self, packet: &Packet) -> Duration {
        let ticks = u64::try_from(packet.pts.get()).unwrap_or(0);
        let seconds = f64::from(self.time_base.numer.get()) / f64::from(self.time_base.denom.get());
        Duration::from_secs_f64(ticks as f64 * seconds)
    }

    fn push(&mut self, arrived: Duration, sequence: u16, packet: &Packet) -> Result<(), Box<dyn Error>> {
        // A real server has the timestamp from the header; it counts at 48 kHz and begins anywhere.
        let timestamp = (self.sent(packet).as_micros() * 48 / 1000) as u32;
        let at = Timestamp::from_nanos(i64::try_from(arrived.as_nanos())?);
        self.sender.push_opus(RtpPacket { at, ssrc: self.ssrc, sequence, timestamp, payload: &packet.data })?;
        Ok(())
    }
}

/// Shows captions until all have left.
fn show(events: &Subscription, mut participants: usize) {
    while participants > 0 {
        match events.recv() {
            Some(EngineEvent::Caption { event: CaptionEvent::Interim { speaker_id, text, .. }, .. }) => {
                println!("{speaker_id}… {text}");
            }
            Some(EngineEvent::Caption { event: CaptionEvent::Final { speaker_id, text, .. }, ledger, .. }) => {
                let late = ledger.map_or(0, |ledger| ledger.latency_nanos() / 1_000_000);
                println!("{speaker_id}: {text} ({late} ms after the silence)");
            }
            Some(EngineEvent::Ended { .. }) => participants -= 1,
            Some(_) => {}
            None => return,
        }
    }
}
