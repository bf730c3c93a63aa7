//! To which run a caption belongs.

use super::*;

#[test]
fn captions_belong_to_the_run_in_which_they_began() {
    check(
        "before, within, behind; translations are no part of a transcript",
        World::new(),
        &[
            "0 alice: join",
            "5 start transcription - +",
            "6 caption alice 4 #0",
            "7 caption alice 6 #1",
            "7 translation alice 6 #1",
            "8 stop captions",
            "9 caption alice 8 #2",
        ],
        &[
            "session_started",
            "joined alice",
            "hear en #1",
            "open file",
            "transcription_started",
            "captions_started",
            "write alice at 6",
            "show alice at 6",
            "show alice at 6 in English",
            "hear en #2",
            "write alice at 8",
        ],
    );
    check(
        "from elsewhere: only while captions run, and into a transcript that runs",
        World::new(),
        &["0 send bob", "0 start captions", "1 bob: send bob", "1 send bob", "2 start transcription", "3 send bob"],
        &[
            "refused: closed captions of this call: they do not run",
            "session_started",
            "hear en #1",
            "captions_started",
            "not allowed",
            "show bob at 1",
            "hear en #2",
            "open file",
            "transcription_started",
            "write bob at 3",
            "show bob at 3",
        ],
    );
    check(
        "recognition breaks",
        World::new(),
        &["0 start transcription - +", "5 failed"],
        &[
            "session_started",
            "hear en #1",
            "open file",
            "transcription_started",
            "captions_started",
            "hear nothing #1",
            "captions_failed out of order",
            "transcription_failed out of order",
            "close file 0 – 5",
        ],
    );
}

#[test]
fn translations_are_made_for_captions_alone() {
    check(
        "with a transcription there are none",
        World::with("default", json!({"transcription": {"translation": {"enabled": true}}})),
        &["0 start transcription", "1 start captions", "2 stop captions", "3 passed #3"],
        &[
            "session_started",
            "hear en #1",
            "open file",
            "transcription_started",
            "hear en translated #2",
            "captions_started",
            "hear en #3",
            "captions_stopped",
        ],
    );
}
