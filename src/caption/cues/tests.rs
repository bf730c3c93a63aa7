use proptest::prelude::*;

use super::*;
use crate::caption::testing::{any_fragment, fragment};
use crate::caption::{Probability, Word};

fn shown(profile: Profile, fragments: &[Fragment]) -> (Vec<DisplayCue>, CueCounts) {
    let mut cues = DisplayCues::new(profile, Timestamp::EPOCH);
    let mut shown = Vec::new();
    for fragment in fragments {
        cues.push(fragment);
        shown.extend(std::iter::from_fn(|| cues.poll()));
    }
    cues.finish();
    shown.extend(std::iter::from_fn(|| cues.poll()));
    assert!(cues.tracks.is_empty() && cues.decided.is_empty());
    (shown, cues.counts())
}

fn english(start_ms: i64, stop_ms: i64, text: &str) -> Fragment {
    Fragment { language: Some(crate::config::Language::ENGLISH), ..fragment(start_ms, stop_ms, "a", text) }
}

/// `start end line|line` of each cue.
fn table(cues: &[DisplayCue]) -> Vec<String> {
    cues.iter().map(|cue| format!("{} {} {}", cue.start_ms, cue.end_ms, cue.lines.join("|"))).collect()
}

const TWO_LINES: &str = "Please enter your conference number, followed by the pound key.";

const QUEUE: &str = "All of our representatives are currently busy. Please stay on the line and your call will be \
                     answered by the next available representative.";

#[test]
fn each_profile_has_its_cues() {
    // Two frames between cues; half a second behind the speech is all the time that "Yes." gets.
    let netflix = [
        "60 2605 All of our representatives|are currently busy.",
        "2689 5682 Please stay on the line|and your call will be answered",
        "5766 8016 by the next available representative.",
        "8100 8900 Yes.",
        "12000 13000 Thank you.",
    ];
    // No gap, or a second. Time to read comes before phrases.
    let bbc = [
        "60 3752 All of our representatives are|currently busy. Please stay on the",
        "3752 8100 line and your call will be answered|by the next available representative.",
        "8100 8434 Yes.",
        "12000 13000 Thank you.",
    ];
    // No cue of less than a second and a third.
    let dcmp = [
        "60 2689 All of our representatives|are currently busy.",
        "2689 4535 Please stay on the line and your",
        "4535 8100 call will be answered by the|next available representative.",
        "8100 9434 Yes.",
        "12000 13334 Thank you.",
    ];
    let cea608 = [
        // The first is late by what it takes to be sent, and short so that it is not later.
        "768 1570 All of our representatives",
        "1570 2689 are currently busy.",
        "2689 4815 Please stay on the line|and your call",
        "4815 8100 will be answered by the next|available representative.",
        "8100 8400 Yes.",
        "12000 13000 Thank you.",
    ];
    let none = [
        "60 7837 All of our representatives are currently|busy. Please stay on the line|and your call will be \
         answered|by the next available representative.",
        "8100 8400 Yes.",
        "12000 13000 Thank you.",
    ];
    let fragments = [english(60, 7837, QUEUE), english(8100, 8400, "Yes."), english(12_000, 13_000, "Thank you.")];
    let zero = CueCounts::default();
    for (profile, expected, counted) in [
        (Profile::Netflix, &netflix[..], CueCounts { too_short: 1, ..zero }),
        (Profile::Bbc, &bbc, CueCounts { split_phrase: 2, ..zero }),
        (Profile::Dcmp, &dcmp, CueCounts { too_fast: 1, split_phrase: 2, ..zero }),
        (Profile::Cea608, &cea608, CueCounts { late: 1, ..zero }),
        (Profile::None, &none, zero),
    ] {
        let (cues, counts) = shown(profile, &fragments);
        assert_eq!(table(&cues), expected, "{profile}");
        assert_eq!(counts, CueCounts { cues: expected.len() as u64, ..counted }, "{profile}");
    }
}

fn worded(start_ms: i64, stop_ms: i64, words: &[(i64, i64, &str)]) -> Fragment {
    let at = |ms: i64| Timestamp::from_nanos(ms * 1_000_000);
    let word = |&(start_ms, end_ms, text): &(i64, i64, &str)| Word {
        text: text.into(),
        start_time: at(start_ms),
        end_time: at(end_ms),
        confidence: Probability::default(),
    };
    let text = words.iter().map(|&(.., text)| text).collect::<Vec<_>>().join(" ");
    Fragment { words: words.iter().map(word).collect(), ..english(start_ms, stop_ms, &text) }
}

#[test]
fn a_gap_reaches_to_the_next_word_and_not_to_its_caption() {
    let fragments = [worded(0, 2500, &[(0, 2500, "Hello.")]), worded(2600, 4000, &[(2750, 4000, "Yes?")])];
    let (cues, counts) = shown(Profile::Netflix, &fragments);
    assert_eq!(table(&cues), ["0 2666 Hello.", "2750 4000 Yes?"]);
    assert_eq!(counts, CueCounts { cues: 2, ..CueCounts::default() });
}

#[test]
fn a_cue_with_room_is_not_divided_for_the_sake_of_a_phrase() {
    let text = "To reset the audio volume of the conference to the default level,";
    let (cues, counts) = shown(Profile::Dcmp, &[english(0, 2000, text)]);
    assert_eq!(table(&cues), ["0 4000 To reset the audio volume of the|conference to the default level,"]);
    assert_eq!(counts, CueCounts { cues: 1, too_fast: 1, split_phrase: 1, ..CueCounts::default() });
}

#[test]
fn what_was_said_before_the_recording_is_late() {
    // Half of the text, by its place.
    let (cues, counts) = shown(Profile::Dcmp, &[english(-3000, 3000, "That was before. This is now.")]);
    assert_eq!(table(&cues), ["0 3000 That was before. This is now."]);
    assert_eq!(counts, CueCounts { cues: 1, late: 1, ..CueCounts::default() });
    let (cues, counts) = shown(Profile::None, &[english(-3000, -2000, "Nor is this lost.")]);
    assert_eq!((table(&cues), counts.late), (vec!["0 1 Nor is this lost.".to_string()], 0), "None has no rules");
    let (cues, counts) = shown(Profile::Bbc, &[english(-3000, -2500, "Nor is this lost.")]);
    assert_eq!((cues.len(), counts.late), (1, 1));
}

#[test]
fn a_rule_that_cannot_be_kept_is_counted() {
    let long = "x".repeat(50);
    let fast = "one two three four five six seven eight nine ten eleven twelve";
    let zero = CueCounts::default();
    for (profile, fragments, expected) in [
        (Profile::Netflix, vec![english(0, 1900, &long)], CueCounts { line_too_long: 1, too_fast: 1, ..zero }),
        (Profile::Netflix, vec![english(0, 9000, "Gooooal!")], CueCounts { too_long: 1, ..zero }),
        (Profile::Dcmp, vec![english(0, 500, "No."), english(600, 2600, "Yes.")], CueCounts { too_short: 1, ..zero }),
        (Profile::Bbc, vec![english(0, 1000, fast)], CueCounts { too_fast: 1, ..zero }),
        // Four characters are 24 bytes: twelve frames behind the cue before.
        (Profile::Cea608, vec![english(1000, 1250, "No."), english(1300, 1800, "Yes.")], CueCounts { late: 1, ..zero }),
        (Profile::Cea608, vec![english(400, 800, "Yes.")], CueCounts { late: 1, ..zero }),
        (Profile::Cea608, vec![english(401, 800, "Yes.")], zero),
        (
            Profile::Netflix,
            vec![english(0, 9000, "a b c d"), english(3000, 4000, "over")],
            CueCounts { overlap: 1, ..zero },
        ),
        // Four lines at once; a cue of CEA-608 behind one that came 300 ms before, both of another speaker.
        (
            Profile::Netflix,
            vec![english(0, 4000, TWO_LINES), Fragment { speaker_id: "b".into(), ..english(3000, 7000, TWO_LINES) }],
            CueCounts { crowded: 1, ..zero },
        ),
        (
            Profile::Cea608,
            vec![english(1000, 1500, "No."), Fragment { speaker_id: "b".into(), ..english(1300, 1800, "Yes.") }],
            CueCounts { crowded: 1, ..zero },
        ),
        (
            Profile::None,
            vec![english(0, 9000, &format!("the {long}"))],
            CueCounts { line_too_long: 1, split_phrase: 1, ..zero },
        ),
    ] {
        let (cues, counts) = shown(profile, &fragments);
        assert_eq!(counts, CueCounts { cues: cues.len() as u64, ..expected }, "{profile} {:?}", table(&cues));
    }
}

#[test]
fn cues_come_in_order_of_time_and_nobody_waits_for_a_speaker_who_is_silent() {
    let mut cues = DisplayCues::new(Profile::Netflix, Timestamp::EPOCH);
    let mut seen = Vec::new();
    for (fragment, expected) in [
        (fragment(0, 9000, "a", QUEUE), 0),
        (fragment(4000, 5000, "b", "Hello, is anybody there?"), 0),
        // Bob's next may still change how long his last one stays; what Alice said is out of reach.
        (fragment(12_000, 12_900, "c", "Who is that?"), 4),
        (fragment(12_000, 12_900, "d", "Nobody."), 0),
        (fragment(80_000, 81_000, "d", "Nobody at all."), 2),
    ] {
        cues.push(&fragment);
        let out: Vec<_> = std::iter::from_fn(|| cues.poll()).collect();
        assert_eq!(out.len(), expected, "{out:?}");
        seen.extend(out);
    }
    assert_eq!(cues.tracks.len(), 1, "who has not spoken for long is forgotten");
    cues.finish();
    seen.extend(std::iter::from_fn(|| cues.poll()));
    let speakers: Vec<_> = seen.iter().map(|cue| cue.speaker_id.as_str()).collect();
    assert_eq!(speakers, ["a", "a", "b", "a", "c", "d", "d"]);
    assert!(seen.is_sorted_by_key(|cue| cue.start_ms));
}

#[test]
fn times_are_rounded_clamped_and_never_run_backwards() {
    let origin = Timestamp::from_nanos(10_000_000_000);
    for (start_ms, stop_ms, expected) in [
        (11_000, 12_500, (1000, 2500)),
        (9_000, 11_000, (0, 1000)),
        (1_000, 2_000, (0, 1)),
        (12_000, 12_000, (2000, 2001)),
        (12_000, 11_000, (2000, 2001)),
        (400 * 3_600_000 + 10_000, 400 * 3_600_000 + 10_001, (1_440_000_000, 1_440_000_001)),
    ] {
        let mut cues = DisplayCues::new(Profile::None, origin);
        cues.push(&fragment(start_ms, stop_ms, "", "x"));
        let cue = cues.poll().unwrap();
        assert_eq!((cue.start_ms, cue.end_ms), expected, "{start_ms} {stop_ms}");
    }
    assert_eq!(ms_since(origin, origin.plus_nanos(1_499_999)), 1);
    assert_eq!(ms_since(origin, origin.plus_nanos(2_500_000)), 3);
}

#[test]
fn words_are_where_they_were_heard_or_else_where_they_stand() {
    let word = |start_ms: i64, end_ms: i64, text: &str| {
        let at = |ms: i64| Timestamp::from_nanos(ms * 1_000_000);
        Word { text: text.into(), start_time: at(start_ms), end_time: at(end_ms), confidence: Probability::default() }
    };
    let right = vec![word(1000, 1400, "Wait,"), word(1500, 1700, "a"), word(1700, 2500, " moment ")];
    let backwards = vec![word(900, 9000, "Wait,"), word(800, 700, "a"), word(1700, 9999, "moment")];
    let other = vec![word(1000, 1400, "Wait,"), word(1500, 1700, "the"), word(1700, 2500, "moment")];
    for (words, expected) in [
        (right, vec![(1000, 1400, Some(1000)), (1500, 1700, Some(1500)), (1700, 2500, Some(1700))]),
        (backwards, vec![(1000, 1000, Some(1000)), (1000, 1000, Some(1000)), (1700, 3000, Some(1700))]),
        // Fourteen characters in two seconds.
        (other, vec![(1000, 1714, None), (1857, 2000, None), (2142, 3000, None)]),
        (vec![], vec![(1000, 1714, None), (1857, 2000, None), (2142, 3000, None)]),
    ] {
        let fragment = Fragment { words, ..english(1000, 3000, "Wait, a moment") };
        let atoms = atoms(&fragment, Timestamp::EPOCH, 42);
        let seen: Vec<_> = atoms.iter().map(|atom| (atom.start_ms, atom.end_ms, atom.stamp_ms)).collect();
        assert_eq!(seen, expected);
    }
}

#[test]
fn lines_break_where_they_should() {
    let unbroken = "x".repeat(50);
    for (code, text, lines) in [
        ("en", "", &[][..]),
        ("en", " \n\t\u{7}\u{a0} ", &[]),
        ("en", "hello", &["hello"]),
        ("en", "Forty-two characters are exactly one line.", &["Forty-two characters are exactly one line."]),
        ("en", "Forty-three characters are one and one more.", &["Forty-three characters", "are one and one more."]),
        (
            "en",
            "That agent is already logged on. Please enter your agent number.",
            &["That agent is already logged on.", "Please enter your agent number."],
        ),
        (
            "en",
            "Yes, I am certain, we are going to do it all again.",
            &["Yes, I am certain,", "we are going to do it all again."],
        ),
        ("fr", "Vraiment\u{202f}! \r\n\r\n Oui\u{a0}!", &["Vraiment\u{202f}! Oui\u{a0}!"]),
        ("en", &format!("a {unbroken} b"), &["a", &unbroken, "b"]),
        ("fr", &format!("{} ? « Oui »", "x".repeat(42)), &[&"x".repeat(42), "? « Oui »"]),
        (
            "fr",
            "Est-ce que vous avez bien lu mon message ? « Oui »",
            &["Est-ce que vous avez bien", "lu mon message ? « Oui »"],
        ),
        (
            "en",
            "I gave it to Charles Babbage and the others there",
            &["I gave it to Charles Babbage", "and the others there"],
        ),
        (
            "fr",
            "Elle a mangé toute la tarte avec les enfants de Marie",
            &["Elle a mangé toute la tarte", "avec les enfants de Marie"],
        ),
        (
            "es",
            "Por favor espere en la línea hasta que le atiendan",
            &["Por favor espere en la línea", "hasta que le atiendan"],
        ),
        (
            "de",
            "Er hat gesagt, dass das Haus in der Stadt verkauft ist",
            &["Er hat gesagt, dass das Haus", "in der Stadt verkauft ist"],
        ),
        (
            "it",
            "Il signore ha chiesto se il treno parte in orario oggi",
            &["Il signore ha chiesto", "se il treno parte in orario oggi"],
        ),
        (
            "pt",
            "A senhora vai esperar na linha até que alguém atenda",
            &["A senhora vai esperar na linha", "até que alguém atenda"],
        ),
        (
            "nl",
            "De vrouw heeft gevraagd of de trein op tijd vertrekt",
            &["De vrouw heeft gevraagd", "of de trein op tijd vertrekt"],
        ),
        (
            "ru",
            "Пожалуйста, введите номер абонента и нажмите решётку",
            &["Пожалуйста, введите номер", "абонента и нажмите решётку"],
        ),
        (
            "ja",
            "申し訳ございませんが、ただいま電話に出ることができません。もう一度おかけください。",
            &["申し訳ございませんが、ただいま電話に出るこ", "とができません。もう一度おかけください。"],
        ),
        (
            "zh",
            "您好，您拨打的电话暂时无法接通，请稍后再拨。谢谢您的理解和支持。",
            &["您好，您拨打的电话暂时无法接通，", "请稍后再拨。谢谢您的理解和支持。"],
        ),
        (
            "th",
            "ขออภัยขณะนี้เจ้าหน้าที่ทุกคนกำลังให้บริการลูกค้าท่านอื่นอยู่ขออภัยขณะนี้เจ้าหน้าที่ทุกคนกำลังให้บริการลูกค้าท่านอื่นอยู่",
            &["ขออภัยขณะนี้เจ้าหน้าที่ทุกคนกำลังให้บริการลูกค้าท่านอื่นอยู่", "ขออภัยขณะนี้เจ้าหน้าที่ทุกคนกำลังให้บริการลูกค้าท่านอื่นอยู่"],
        ),
    ] {
        let fragment = Fragment { language: Some(code.parse().unwrap()), ..fragment(0, 5000, "a", text) };
        let (cues, _) = shown(Profile::None, &[fragment]);
        let seen: Vec<_> = cues.iter().flat_map(|cue| &cue.lines).collect();
        assert_eq!(seen, lines, "{text}");
    }
}

#[test]
fn punctuation_that_stands_alone_belongs_to_a_word() {
    for (text, expected, words) in [
        ("Où  est-il ? « Là »,\n dit-elle !", &["Où", "est-il ?", "« Là »,", "dit-elle !"][..], 4),
        ("Oui . — Non – si ( et )", &["Oui .", "— Non –", "si", "( et )"], 4),
        ("« — Oui", &["« — Oui"], 1),
        ("? ! Oui (", &["? ! Oui ("], 1),
        ("電話 ? « 電話 »", &["電", "話 ?", "« 電", "話 »"], 2),
        (&format!("{} ?", "x".repeat(41)), &[&"x".repeat(41), "?"], 1),
        ("♪ ♪ ♪", &["♪ ♪ ♪"], 0),
    ] {
        let fragment = english(0, 1000, &text.split_whitespace().collect::<Vec<_>>().join(" "));
        let atoms = atoms(&fragment, Timestamp::EPOCH, 42);
        let seen: Vec<_> = atoms.iter().map(|atom| atom.text).collect();
        assert_eq!(seen, expected);
        assert_eq!(atoms.iter().map(|atom| atom.sixths).sum::<u64>().div_ceil(6), words, "{text}");
    }
}

/// Fragments of any text and time, with words that may or may not be their text.
fn any_worded_fragment() -> impl Strategy<Value = Fragment> {
    let word = ("[a-zé本ท ]{0,5}", any::<i64>(), any::<i64>());
    let speaker = prop::sample::select(vec!["a", "b", ""]);
    (any_fragment(), speaker, prop::collection::vec(word, 0..5), any::<bool>(), any::<bool>()).prop_map(
        |(fragment, speaker, words, is_text, is_near)| {
            let at = |nanos: i64| Timestamp::from_nanos(if is_near { nanos % 20_000_000_000 } else { nanos });
            let text = words.iter().map(|(text, ..)| text.as_str()).collect::<String>();
            let word = |(text, start, end): (String, i64, i64)| Word {
                text,
                start_time: at(start),
                end_time: at(end),
                confidence: Probability::default(),
            };
            Fragment {
                start_time: at(fragment.start_time.as_nanos()),
                stop_time: at(fragment.stop_time.as_nanos()),
                speaker_id: speaker.to_string(),
                text: if is_text { text } else { fragment.text },
                words: words.into_iter().map(word).collect(),
                language: crate::config::Language::all().nth(fragment.start_time.as_nanos() as usize % 36),
                ..Fragment::default()
            }
        },
    )
}

proptest! {
    #[test]
    fn no_fragment_loses_a_letter_or_time_its_order(fragments in prop::collection::vec(any_worded_fragment(), 0..6)) {
        let letters = |text: &str| {
            let mut letters: Vec<char> = words(text).flat_map(str::chars).collect();
            letters.sort_unstable();
            letters
        };
        let said: String = fragments.iter().map(|fragment| format!("{} ", fragment.text)).collect();
        for profile in Profile::ALL {
            let (cues, counts) = shown(profile, &fragments);
            prop_assert_eq!(counts.cues, cues.len() as u64);
            let text: String = cues.iter().flat_map(|cue| &cue.lines).map(|line| format!("{line} ")).collect();
            prop_assert_eq!(letters(&text), letters(&said), "{}", profile);
            for cue in &cues {
                prop_assert!(cue.start_ms < cue.end_ms);
                prop_assert!(!cue.lines.is_empty() && cue.lines.len() <= profile.rules().lines);
                let mut last = (0, cue.start_ms);
                for stamp in &cue.stamps {
                    prop_assert!(cue.lines[stamp.line].is_char_boundary(stamp.byte));
                    prop_assert!((stamp.line, stamp.ms) >= last && stamp.ms > last.1 && stamp.ms < cue.end_ms);
                    last = (stamp.line, stamp.ms);
                }
            }
        }
    }
}

#[test]
fn a_text_of_any_length_is_shown() {
    for text in ["the house of Ada Lovelace, and more. ".repeat(2000), "電話に出る。".repeat(2000), "x".repeat(200_000)]
    {
        for profile in Profile::ALL {
            let (cues, counts) = shown(profile, &[english(0, 3_600_000, &text)]);
            let chars: usize = cues.iter().flat_map(|cue| &cue.lines).flat_map(|line| words(line)).map(str::len).sum();
            assert_eq!(chars, words(&text).map(str::len).sum::<usize>(), "{profile}");
            assert_eq!(counts.line_too_long, u64::from(text.starts_with('x')), "{profile}");
        }
    }
}
