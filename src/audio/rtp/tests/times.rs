//! The stated time and RTP's own: what is believed of either.

use super::*;

#[test]
fn a_stated_time_that_jitters_gives_times_that_do_not() {
    let mut sent = voice_stream(200);
    for (index, sent) in sent.iter_mut().enumerate().skip(1) {
        sent.at = sent.at.plus_nanos((index as i64 * 7919 % 21) * 10 * MS);
    }
    // One stall of 3 s, delivered in a burst.
    for (index, sent) in sent.iter_mut().enumerate().skip(100) {
        sent.at = sent.at.max(at_ms(5_000 + index as i64 / 10));
    }
    let heard = hear(&sent);
    assert_eq!(heard.jumps(), []);
    let last = heard.pieces[199].0.nanos_since(at_ms(199 * 20));
    // 200 steps of 10 µs at most.
    assert!((0..=2 * MS).contains(&last), "{last}");
}

#[test]
fn a_pause_that_the_rtp_time_leaves_out_is_believed() {
    // Above 10 s at once, below after a second.
    for (pause_ms, after) in [(200, None), (300, Some(50)), (5_000, Some(50)), (9_900, Some(50)), (10_100, Some(0))] {
        let mut sent = voice_stream(200);
        for sent in &mut sent[100..] {
            sent.at = sent.at.plus_nanos(pause_ms * MS);
        }
        let heard = hear(&sent);
        assert_eq!(heard.samples.len(), 200 * 320);
        let jumps: Vec<(usize, i64)> = heard.jumps().iter().map(|(at, jump)| (at / 320, jump / MS)).collect();
        match after {
            None => assert_eq!(jumps, []),
            Some(after) => {
                assert_eq!(jumps.len(), 1, "{pause_ms} ms: {jumps:?}");
                assert_eq!(jumps[0].0, 100 + after, "{pause_ms} ms");
                assert!((pause_ms - 1..=pause_ms).contains(&jumps[0].1), "{pause_ms} ms: {jumps:?}");
            }
        }
    }
}

#[test]
fn rtp_time_that_makes_no_sense_is_not_believed() {
    let expected = hear(&voice_stream(60));
    // It stands still, goes back, or jumps by hours, while the sequence goes on and the stated time as well.
    for jump in [-960_i32, -48_000, i32::MIN, 48_000 * 3600, i32::MAX - 960] {
        let mut sent = voice_stream(60);
        for sent in &mut sent[30..] {
            sent.timestamp = sent.timestamp.wrapping_add(jump as u32);
        }
        let heard = hear(&sent);
        assert_eq!((&heard.samples, heard.jumps()), (&expected.samples, vec![]), "{jump}");
    }
}
