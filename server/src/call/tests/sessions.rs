//! When sessions begin and end, and what begins and ends with them.

use super::*;

#[test]
fn the_order_of_a_session_is_as_documented() {
    check(
        "not stopped by anybody",
        World::with("default", serde_json::from_str(AUTO).unwrap()),
        &["0 alice: join", "1 caption alice 1 #1", "5 leave alice", "34 tick", "35 tick"],
        &[
            "session_started",
            "joined alice",
            "hear en #1",
            "open file",
            "transcription_started",
            "captions_started",
            "write alice at 1",
            "show alice at 1",
            "left alice",
            "hear nothing #1",
            "captions_stopped",
            "session_ended",
            "close file 0 – 35",
        ],
    );
    check(
        "stopped, with a caption open that began before",
        World::new(),
        &[
            "0 alice: join",
            "0 start transcription - +",
            "9 stop transcription +",
            "9 caption alice 8 #1",
            "9 caption alice 9 #2",
            "10 passed #2",
            "11 leave alice",
            "41 tick",
        ],
        &[
            "session_started",
            "joined alice",
            "hear en #1",
            "open file",
            "transcription_started",
            "captions_started",
            "hear nothing #2",
            "write alice at 8",
            "show alice at 8",
            "captions_stopped",
            "transcription_stopped",
            "close file 0 – 9",
            "left alice",
            "session_ended",
        ],
    );
    check(
        "a stop whose caption is still open when the session ends",
        World::new(),
        &["0 alice: join", "0 start transcription", "9 stop transcription", "10 leave alice", "40 tick"],
        &[
            "session_started",
            "joined alice",
            "hear en #1",
            "open file",
            "transcription_started",
            "hear nothing #2",
            "left alice",
            "transcription_stopped",
            "session_ended",
            "close file 0 – 9",
        ],
    );
}

#[test]
fn sessions_wait_for_participants_and_end_without_them() {
    check(
        "a start makes one, which waits an hour",
        World::new(),
        &["0 start transcription", "3599 tick", "3600 tick"],
        &[
            "session_started",
            "hear en #1",
            "open file",
            "transcription_started",
            "hear nothing #1",
            "session_ended",
            "close file 0 – 3600",
        ],
    );
    check(
        "who comes back in time goes on; a second connection replaces the first",
        World::with("default", json!({"session": {"inactivity_timeout_seconds": 5}})),
        &["0 alice: join", "1 alice: join", "2 leave alice", "6 tick", "6 alice: join", "9 leave alice", "14 tick"],
        &["session_started", "joined alice", "left alice", "joined alice", "left alice", "session_ended"],
    );
    check(
        "marked as ended, it ends when all have left; then nothing starts, and entering needs a capability of its own",
        World::with("default", serde_json::from_str(AUTO).unwrap()),
        &[
            "0 alice: join",
            "1 bob: end",
            "2 carol: end",
            "2 start captions",
            "3 leave alice",
            "4 start captions",
            "5 alice: join",
            "6 carol: join",
        ],
        &[
            "session_started",
            "joined alice",
            "hear en #1",
            "open file",
            "transcription_started",
            "captions_started",
            "not allowed",
            "ended",
            "disconnect alice",
            "refused: the call default:c has ended",
            "left alice",
            "hear nothing #1",
            "captions_stopped",
            "session_ended",
            "close file 0 – 3",
            "refused: the call default:c has ended",
            "not allowed",
            "session_started",
            "joined carol",
        ],
    );
    check(
        "deleted, it ends at once",
        World::new(),
        &["0 alice: join", "0 start transcription", "5 delete"],
        &[
            "session_started",
            "joined alice",
            "hear en #1",
            "open file",
            "transcription_started",
            "disconnect alice",
            "left alice",
            "hear nothing #1",
            "session_ended",
            "close file 0 – 5",
            "deleted",
        ],
    );
    check("marked as ended with nobody there", World::new(), &["0 end", "1 end"], &["ended"]);
}

#[test]
fn what_starts_by_itself_does_so_once_a_session() {
    let auto = serde_json::from_str::<Value>(r#"{"transcription": {"closed_caption_mode": "auto-on"}}"#).unwrap();
    check(
        "not again after an explicit stop, but in the next session",
        World::with("default", auto.clone()),
        &[
            "0 alice: join",
            "1 stop captions",
            "1 passed #2",
            "2 bob: join",
            "3 leave bob",
            "3 leave alice",
            "33 tick",
            "40 alice: join",
        ],
        &[
            "session_started",
            "joined alice",
            "hear en #1",
            "captions_started",
            "hear nothing #2",
            "captions_stopped",
            "joined bob",
            "left bob",
            "left alice",
            "session_ended",
            "session_started",
            "joined alice",
            "hear en #3",
            "captions_started",
        ],
    );
    check(
        "at once where somebody is there; `disabled` stops it as the API does",
        World::new(),
        &[
            "0 alice: join",
            &format!("1 update {auto}"),
            r#"2 update {"transcription": {"closed_caption_mode": "disabled"}}"#,
            "2 passed #2",
            r#"3 type {"transcription": {"mode": "auto-on"}}"#,
            r#"4 type {"transcription": {"mode": "disabled"}}"#,
        ],
        &[
            "session_started",
            "joined alice",
            "updated",
            "hear en #1",
            "captions_started",
            "updated",
            "hear nothing #2",
            "captions_stopped",
            "hear en #3",
            "open file",
            "transcription_started",
            "hear nothing #4",
        ],
    );
}

#[test]
fn a_restart_suspends_sessions_and_those_who_return_go_on() {
    let began = ["session_started", "joined alice", "joined bob", "hear en #1", "open file", "transcription_started"];
    let steps = ["0 alice: join", "0 bob: join", "0 start transcription", "10 restart"];
    let mut world = World::new();
    steps.iter().for_each(|step| world.step(step));
    assert_eq!(world.said[..6], began);
    check(
        "one returns, the other one does not",
        world,
        &["15 alice: join", "16 caption alice 15 #1", "39 tick", "40 tick", "50 leave alice", "80 tick"],
        &[
            &began[..],
            &["hear en #1", "write alice at 15", "left bob", "left alice", "hear nothing #1", "session_ended"],
            &["close file 0 – 80"],
        ]
        .concat(),
    );
    let mut world = World::new();
    steps.iter().for_each(|step| world.step(step));
    check(
        "nobody returns",
        world,
        &["40 tick"],
        &[
            &began[..],
            &["hear en #1", "left alice", "left bob", "hear nothing #1", "session_ended", "close file 0 – 40"],
        ]
        .concat(),
    );
    let mut world = World::new();
    steps.iter().for_each(|step| world.step(step));
    world.said.clear();
    check(
        "who returned and has left is waited for like anybody",
        world,
        &["20 alice: join", "39 leave alice", "40 tick", "69 tick", "70 tick"],
        &["left alice", "left bob", "hear nothing #1", "session_ended", "close file 0 – 70"],
    );
    check(
        "what was set meanwhile to start by itself starts with the first who returns",
        World::new(),
        &["0 alice: join", "1 restart", &format!("2 update {AUTO}"), "3 alice: join", "4 alice: join"],
        &[
            "session_started",
            "joined alice",
            "updated",
            "hear en #1",
            "open file",
            "transcription_started",
            "captions_started",
        ],
    );
    let mut world = World::new();
    ["0 alice: join", "0 start captions", "5 stop captions", "6 restart"].iter().for_each(|step| world.step(step));
    assert_eq!(world.said.last().unwrap(), "captions_stopped", "no caption is open any more");
}
