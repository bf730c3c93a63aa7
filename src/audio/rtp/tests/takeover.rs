//! Another stream in place of the one before, and strays that are none.

use super::*;

#[test]
fn another_stream_takes_over_with_its_second_packet() {
    let one = voice_stream(20);
    for (ssrc, sequence) in [(8, 1020), (8, 40_000), (7, 1020 + 3000), (7, 40_000), (7, 800)] {
        let mut two = stream(&encode(20, 20, |_| {}), 20, sequence, 777);
        for (index, sent) in two.iter_mut().enumerate() {
            sent.ssrc = ssrc;
            sent.at = at_ms(5_000 + index as i64 * 20);
        }
        // The first packet of the new one is not given out before the second, nor lost.
        let (mut receiver, mut heard) = (receiver(), Heard::default());
        for sent in one.iter().chain(&two[..1]) {
            receiver.handle_packet(sent.packet()).unwrap();
            heard.drain(&mut receiver);
        }
        assert_eq!(heard, Heard { stats: ReceiverStats { received: 21, ..ReceiverStats::default() }, ..hear(&one) });
        for sent in &two[1..] {
            receiver.handle_packet(sent.packet()).unwrap();
            heard.drain(&mut receiver);
        }
        assert_eq!(heard.jumps(), [(20 * 320, 4_600 * MS)]);
        assert_eq!(heard.samples[20 * 320..], hear(&two).samples);
        assert_eq!(heard.stats, ReceiverStats { received: 40, restarts: 1, ..ReceiverStats::default() });
    }
}

#[test]
fn what_the_old_stream_holds_is_given_out_before_the_new_one() {
    let one = voice_stream(20);
    let mut two = voice_stream(10);
    for (index, sent) in two.iter_mut().enumerate() {
        (sent.ssrc, sent.at) = (8, at_ms(5_000 + index as i64 * 20));
    }
    // 17 is missing when the new stream comes, and comes too late.
    let order = one[..17].iter().chain(&one[18..]).chain(&two[..3]).chain([&one[17]]).chain(&two[3..]);
    let heard = hear(order);
    let expected = hear_without(&one, |index| index == 17);
    assert_eq!(heard.samples[..20 * 320], expected.samples);
    assert_eq!((heard.samples.len(), heard.jumps()), (30 * 320, vec![(20 * 320, 4_600 * MS)]));
    let stats =
        ReceiverStats { received: 30, lost: 1, stray: 1, restarts: 1, concealed_samples: 320, ..expected.stats };
    assert_eq!(heard.stats, stats);
}

#[test]
fn strays_play_no_part() {
    let sent = voice_stream(30);
    let mut expected = hear(&sent);
    expected.stats.received += 10;
    expected.stats.stray = 10;
    let with_strays: Vec<Sent> = sent
        .iter()
        .enumerate()
        .flat_map(|(index, sent)| {
            let other = Sent { ssrc: 9, ..sent.clone() };
            let far = Sent { sequence: sent.sequence + 20_000, ..sent.clone() };
            let stray = [Some(other), Some(far)].into_iter().flatten().filter(move |_| index % 6 == 1);
            std::iter::once(sent.clone()).chain(stray)
        })
        .collect();
    assert_eq!(hear(&with_strays), expected);
    // Nor does one that comes first, but for the two packets it takes to be sure.
    let stray = Sent { ssrc: 9, ..sent[0].clone() };
    let heard = hear([&stray].into_iter().chain(&sent[1..]));
    assert_eq!((heard.samples.len(), heard.stats.restarts, heard.stats.lost), (30 * 320, 1, 0));
}
