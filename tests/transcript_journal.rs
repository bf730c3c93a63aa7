//! A journal, and the file that is made of it, whatever happens to their writer and to the disk.
#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic)]

use std::fs;
use std::io::Read as _;
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};
use std::time::{Duration, Instant, SystemTime};

use cuewire::time::Timestamp;
use cuewire::transcript::{Fragment, Journal, JournalError, Sync, jsonl};
use disk::Disk;

#[path = "support/disk.rs"]
mod disk;

/// What the child of a test does, and with which file.
const TASK: &str = "CUEWIRE_TEST_CHILD_TASK";
const FILE: &str = "CUEWIRE_TEST_CHILD_FILE";
const SYNC: &str = "CUEWIRE_TEST_CHILD_SYNC";

/// The fragment of a number. Some are long, so that a write takes its time and is interrupted.
fn fragment(number: u64) -> Fragment {
    let length = if number % 16 == 7 { 40_000 } else { 20 + number % 50 };
    Fragment {
        start_time: Timestamp::from_nanos(number as i64 * 1_000_000_000),
        stop_time: Timestamp::from_nanos(number as i64 * 1_000_000_000 + 1),
        speaker_id: format!("speaker-{}", number % 3),
        text: format!("{number}: {}", "é".repeat(length as usize)),
        ..Fragment::default()
    }
}

fn fragments(count: u64) -> Vec<Fragment> {
    (0..count).map(fragment).collect()
}

/// The lines of a file, every one whole and ended.
fn whole_lines(path: &Path) -> Vec<Fragment> {
    let bytes = fs::read(path).unwrap();
    assert!(bytes.is_empty() || bytes.ends_with(b"\n"), "the last line of {} is torn", path.display());
    jsonl::Reader::new(bytes.as_slice()).map(|line| line.expect("a whole line")).collect()
}

/// Numbers that a seed draws.
struct Drawn(u64);

impl Drawn {
    /// By a seed of one's own, where a failure is to be seen again.
    fn new(what: &str) -> Self {
        let now = SystemTime::now().duration_since(SystemTime::UNIX_EPOCH).unwrap();
        let given = std::env::var("CUEWIRE_TEST_SEED").ok().and_then(|seed| seed.parse().ok());
        let seed = given.unwrap_or(now.as_nanos() as u64);
        eprintln!("{what}: CUEWIRE_TEST_SEED={seed}");
        Self(seed | 1)
    }

    fn below(&mut self, end: u64) -> u64 {
        self.0 ^= self.0 << 13;
        self.0 ^= self.0 >> 7;
        self.0 ^= self.0 << 17;
        self.0 % end
    }
}

/// This program again, as the child that does `task`.
fn child(task: &str, file: &Path, sync: Sync) -> Command {
    let mut command = Command::new(std::env::current_exe().unwrap());
    command.args(["the_child_of_other_tests", "--exact", "--ignored", "--nocapture", "--test-threads=1"]);
    command.env(TASK, task).env(FILE, file).env(SYNC, sync.to_string());
    command.stdout(Stdio::null()).stderr(Stdio::piped());
    command
}

#[test]
#[ignore = "other tests start it, and kill it"]
fn the_child_of_other_tests() {
    let Ok(task) = std::env::var(TASK) else { return };
    let path = PathBuf::from(std::env::var_os(FILE).unwrap());
    let (mut journal, recovered) = Journal::open(&path, std::env::var(SYNC).unwrap().parse().unwrap()).unwrap();
    match task.as_str() {
        "finish" => journal.finish(&path.with_extension("jsonl")).unwrap(),
        "write" | "write 5" => {
            let end = if task == "write" { u64::MAX } else { recovered.fragments + 5 };
            for number in recovered.fragments..end {
                if let Err(error) = journal.append(&fragment(number)) {
                    eprintln!("{error}");
                    return;
                }
                // One write, so that the parent has it whole.
                eprintln!("acknowledged {number}");
            }
        }
        other => panic!("{other}"),
    }
}

/// Starts the child and kills it so much later; what it said by then.
fn killed(mut command: Command, after: Duration) -> String {
    let mut child = command.spawn().unwrap();
    std::thread::sleep(after);
    child.kill().unwrap();
    let mut said = String::new();
    child.stderr.take().unwrap().read_to_string(&mut said).unwrap();
    child.wait().unwrap();
    said
}

#[test]
fn nothing_acknowledged_is_lost_or_there_twice_when_the_writer_is_killed_200_times() {
    let mut drawn = Drawn::new("kill -9 of a writer");
    let folder = tempfile::tempdir().unwrap();
    let (mut torn, mut all) = (0, 0);
    let mut path = folder.path().join("0.journal");
    let mut before = 0;
    for time in 0..200u64 {
        let sync = Sync::ALL[(time % 3) as usize];
        let said = killed(child("write", &path, sync), Duration::from_micros(drawn.below(20_000)));
        let last = said.lines().rfind(|line| said.ends_with('\n') || !said.ends_with(*line));
        let acknowledged = last.map_or(before, |line| {
            line.strip_prefix("acknowledged ").and_then(|number| number.parse::<u64>().ok()).expect(line) + 1
        });
        let (journal, recovered) = Journal::open(&path, sync).unwrap();
        torn += u64::from(recovered.cut_bytes > 0);
        let there = whole_lines(&path);
        let count = there.len() as u64;
        assert!(
            (acknowledged..=acknowledged + 1).contains(&count),
            "time {time}: {count} are there, {acknowledged} were acknowledged"
        );
        assert!(there == fragments(count), "time {time}: each once, in its order");
        assert_eq!((recovered.fragments, recovered.unreadable), (count, 0));
        assert!(journal.read().unwrap() == there);
        all += count - before;
        before = count;
        if fs::metadata(&path).unwrap().len() > 200_000 {
            let target = folder.path().join(format!("{time}.jsonl"));
            journal.finish(&target).unwrap();
            assert!(whole_lines(&target) == fragments(count));
            (path, before) = (folder.path().join(format!("{}.journal", time + 1)), 0);
        }
    }
    eprintln!("{all} fragments, {torn} torn lines");
    assert!(all >= 200, "the children wrote next to nothing: {all}");
}

#[test]
fn a_finished_file_is_what_it_was_or_whole_when_its_writer_is_killed() {
    let mut drawn = Drawn::new("kill -9 of a finish");
    let folder = tempfile::tempdir().unwrap();
    let (path, target) = (folder.path().join("call.journal"), folder.path().join("call.jsonl"));
    let expected = fragments(40);
    let (mut before, mut whole) = (0, 0);
    for time in 0..60 {
        let (mut journal, _) = Journal::open(&path, Sync::Never).unwrap();
        expected.iter().for_each(|fragment| journal.append(fragment).unwrap());
        drop(journal);
        fs::write(&target, "what it was").unwrap();
        killed(child("finish", &path, Sync::ALL[time % 3]), Duration::from_micros(drawn.below(30_000)));
        if fs::read(&target).unwrap() == b"what it was" {
            before += 1;
            assert!(path.exists(), "time {time}: the journal stays until the file is there");
        } else {
            whole += 1;
            assert!(whole_lines(&target) == expected, "time {time}");
        }
        // And once more, from where it stands.
        if path.exists() {
            Journal::open(&path, Sync::Each).unwrap().0.finish(&target).unwrap();
        }
        assert!(whole_lines(&target) == expected, "time {time}");
        assert!(!path.exists());
    }
    eprintln!("killed before the file was there: {before}, behind that: {whole}");
    assert!(fs::read_dir(folder.path()).unwrap().count() <= 2, "nothing piles up");
}

#[test]
fn a_journal_that_breaks_off_at_any_byte_has_each_whole_line_and_goes_on() {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("call.journal");
    let mut bytes = Vec::new();
    for number in 0..3 {
        jsonl::write_fragment(&mut bytes, &fragment(number)).unwrap();
    }
    let garbage = b"\xff{\"type\":\n\0\xfe}\n{\"type\":\"spee";
    for cut in 0..=bytes.len() {
        for tail in [&b""[..], &[0; 37], garbage] {
            fs::write(&path, [&bytes[..cut], tail].concat()).unwrap();
            let ended = bytes[..cut].iter().filter(|&&byte| byte == b'\n').count() as u64;
            let (mut journal, recovered) = match Journal::open(&path, Sync::Never) {
                Ok(opened) => opened,
                // With no line that was ever whole, garbage may be anybody's.
                Err(JournalError::NotAJournal { .. }) if ended == 0 && tail == garbage => {
                    assert_eq!(fs::read(&path).unwrap().len(), cut + tail.len(), "it is not touched");
                    continue;
                }
                Err(error) => panic!("cut at {cut}: {error}"),
            };
            // A line of which only the end is missing may count.
            let count = recovered.fragments;
            assert!((ended..=ended + 1).contains(&count), "cut at {cut} {tail:?}: {recovered:?}");
            assert_eq!(recovered.unreadable, 0);
            assert!(whole_lines(&path) == fragments(count), "cut at {cut}");
            journal.append(&fragment(count)).unwrap();
            drop(journal);
            let (again, recovered) = Journal::open(&path, Sync::Never).unwrap();
            assert_eq!((recovered.fragments, recovered.cut_bytes), (count + 1, 0));
            assert!(whole_lines(&path) == fragments(count + 1) && again.fragments() == count + 1, "cut at {cut}");
        }
    }
}

#[test]
fn what_is_lost_between_whole_lines_is_counted_and_costs_no_other() {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("call.journal");
    let line = |number| {
        let mut line = Vec::new();
        jsonl::write_fragment(&mut line, &fragment(number)).unwrap();
        line
    };
    // A block that was never written, under a policy that does not sync.
    fs::write(&path, [line(0), vec![0; 80], b"\n".to_vec(), line(2)].concat()).unwrap();
    let (journal, recovered) = Journal::open(&path, Sync::Second).unwrap();
    assert_eq!((recovered.fragments, recovered.cut_bytes, recovered.unreadable), (2, 0, 1));
    let target = folder.path().join("call.jsonl");
    journal.finish(&target).unwrap();
    assert_eq!(whole_lines(&target), [fragment(0), fragment(2)]);
}

/// Fills a disk, frees it again, and fills it in the middle of the finish.
#[test]
fn on_a_full_disk_nothing_acknowledged_is_lost_and_the_writer_goes_on_when_there_is_room() {
    let Some(disk) = Disk::of_kib(1024) else { return };
    let (path, target) = (disk.path().join("call.journal"), disk.path().join("call.jsonl"));
    let (mut journal, _) = Journal::open(&path, Sync::Each).unwrap();
    (0..20).for_each(|number| journal.append(&fragment(number)).unwrap());
    let ballast = disk.fill();
    let mut next = 20;
    let error = loop {
        match journal.append(&fragment(next)) {
            Ok(()) => next += 1,
            Err(error) => break error.to_string(),
        }
    };
    assert!(error.contains(path.to_str().unwrap()) && error.contains("make room"), "{error}");
    for _ in 0..3 {
        journal.append(&fragment(next)).unwrap_err();
        assert!(whole_lines(&path) == fragments(next), "what failed is not there, not even in part");
    }
    // Neither does a new one begin, nor the finished file.
    let error = journal.finish(&target).unwrap_err().to_string();
    assert!(error.contains(target.to_str().unwrap()) && error.contains("make room"), "{error}");
    assert!(!target.exists() && whole_lines(&path) == fragments(next));
    let (mut journal, _) = Journal::open(&path, Sync::Each).unwrap();
    assert!(journal.append(&fragment(next)).is_err());
    fs::remove_file(ballast).unwrap();
    for number in next..next + 5 {
        journal.append(&fragment(number)).unwrap();
    }
    assert!(whole_lines(&path) == fragments(next + 5), "each once");
    journal.finish(&target).unwrap();
    assert!(whole_lines(&target) == fragments(next + 5) && !path.exists());
}

/// The same where nothing may be mounted: a file may only be so large.
#[test]
fn a_file_that_may_not_grow_ends_in_a_whole_line_and_says_why() {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("call.journal");
    let write = child("write", &path, Sync::Never);
    let mut limited = Command::new("sh");
    limited.args(["-c", "trap '' XFSZ; ulimit -f 40; exec \"$@\"", "sh"]).arg(write.get_program());
    limited.args(write.get_args()).stdout(Stdio::null()).stderr(Stdio::piped());
    limited.envs(write.get_envs().filter_map(|(name, value)| Some((name, value?))));
    let said = String::from_utf8(limited.output().unwrap().stderr).unwrap();
    // The error has the word too.
    let (acknowledged, error) = (said.matches("acknowledged ").count() as u64 - 1, said.lines().next_back().unwrap());
    assert!(error.contains(path.to_str().unwrap()) && error.contains("make room"), "{said}");
    assert!(acknowledged > 0 && whole_lines(&path) == fragments(acknowledged), "{said}");
    let (mut journal, recovered) = Journal::open(&path, Sync::Each).unwrap();
    assert_eq!(recovered.cut_bytes, 0, "the failed line was taken back at once");
    journal.append(&fragment(acknowledged)).unwrap();
    assert!(whole_lines(&path) == fragments(acknowledged + 1));
}

#[test]
fn a_folder_that_may_not_be_written_is_named_with_what_to_do() {
    let folder = tempfile::tempdir().unwrap();
    fs::write(folder.path().join("file"), "").unwrap();
    for (path, advice) in
        [("file/call.journal", "a folder that is there"), ("no/call.journal", "a folder that is there")]
    {
        let path = folder.path().join(path);
        let error = Journal::open(&path, Sync::Each).unwrap_err().to_string();
        assert!(error.contains(path.to_str().unwrap()) && error.contains(advice), "{error}");
    }
    let Some(disk) = Disk::of_kib(256) else { return };
    let (path, target) = (disk.path().join("call.journal"), disk.path().join("call.jsonl"));
    let (mut journal, _) = Journal::open(&path, Sync::Each).unwrap();
    journal.append(&fragment(0)).unwrap();
    drop(journal);
    disk.may_be_written(false);
    for path in [&path, &disk.path().join("other.journal")] {
        let error = Journal::open(path, Sync::Each).unwrap_err().to_string();
        assert!(error.contains(path.to_str().unwrap()) && error.contains("a folder that may be written"), "{error}");
    }
    disk.may_be_written(true);
    // A journal elsewhere, whose file cannot come to be where it should.
    let elsewhere = folder.path().join("call.journal");
    fs::copy(&path, &elsewhere).unwrap();
    let (journal, _) = Journal::open(&elsewhere, Sync::Each).unwrap();
    disk.may_be_written(false);
    let error = journal.finish(&target).unwrap_err().to_string();
    assert!(error.contains(target.to_str().unwrap()) && error.contains("a folder that may be written"), "{error}");
    assert_eq!(whole_lines(&elsewhere), [fragment(0)], "the journal is as it was");
}

#[test]
fn times_that_go_back_stay_in_their_order_in_the_journal_and_in_order_of_time_in_the_file() {
    let folder = tempfile::tempdir().unwrap();
    let (path, target) = (folder.path().join("call.journal"), folder.path().join("call.jsonl"));
    let (mut journal, _) = Journal::open(&path, Sync::Each).unwrap();
    // A clock that is set back by a day, and then to its beginning; the same instant twice.
    let order = [5, 6, 1, 2, 7, 0, 3];
    order.iter().for_each(|&number| journal.append(&fragment(number)).unwrap());
    let again = Fragment { text: "at the same time".into(), ..fragment(2) };
    journal.append(&again).unwrap();
    assert_eq!(journal.read().unwrap()[..7], order.map(fragment));
    journal.finish(&target).unwrap();
    let texts: Vec<String> = whole_lines(&target).into_iter().map(|fragment| fragment.text).collect();
    let expected = [fragment(0), fragment(1), fragment(2), again, fragment(3), fragment(5), fragment(6), fragment(7)];
    assert_eq!(texts, expected.map(|fragment| fragment.text));
}

#[test]
fn a_journal_has_one_writer_and_another_file_is_left_alone() {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("call.journal");
    let (mut journal, _) = Journal::open(&path, Sync::Each).unwrap();
    assert!(matches!(Journal::open(&path, Sync::Each), Err(JournalError::InUse { .. })));
    let long = Fragment { text: "x".repeat(1 << 20), ..fragment(0) };
    let error = journal.append(&long).unwrap_err();
    assert!(matches!(error, JournalError::TooLong { .. }), "{error}");
    journal.append(&fragment(0)).unwrap();
    drop(journal);
    assert_eq!(whole_lines(&path), [fragment(0)], "what no reader would take is not written");
    for text in [
        "hello",
        "{\"captions\":[]}\n",
        "WEBVTT\n\n",
        "[1]\n",
        "\u{feff}{}\n",
        "\0\0\0\0\0\0\0\0\0\0\0\0an image of a disk",
        "{\"type\":\"FeatureCollection\",\n\"features\":[]}\n",
        "{\"type\":\"FeatureCollection\",\"features\":[]}\n",
        "{\"type\":\"speech\",\n\"text\":7}\n",
        "{\"type\":\"speech\",\0\0\0and more",
    ] {
        let other = folder.path().join("other");
        fs::write(&other, text).unwrap();
        assert!(matches!(Journal::open(&other, Sync::Each), Err(JournalError::NotAJournal { .. })), "{text}");
        assert_eq!(fs::read_to_string(&other).unwrap(), text);
    }
}

#[test]
fn who_waits_for_a_journal_that_is_finished_meanwhile_writes_to_a_file_with_a_name() {
    let folder = tempfile::tempdir().unwrap();
    let (path, target) = (folder.path().join("call.journal"), folder.path().join("call.jsonl"));
    let opened = loop {
        let (mut journal, _) = Journal::open(&path, Sync::Each).unwrap();
        journal.append(&fragment(0)).unwrap();
        let waiting = std::thread::spawn({
            let path = path.clone();
            move || Journal::open(&path, Sync::Each)
        });
        std::thread::sleep(std::time::Duration::from_millis(50));
        journal.finish(&target).unwrap();
        match waiting.join().unwrap() {
            // It waits for half a second, which a busy machine may take to get here.
            Err(JournalError::InUse { .. }) => {}
            opened => break opened,
        }
    };
    let (mut next, recovered) = opened.unwrap();
    assert_eq!(recovered.fragments, 0);
    next.append(&fragment(1)).unwrap();
    drop(next);
    assert_eq!(whole_lines(&path), [fragment(1)]);
    assert_eq!(whole_lines(&target), [fragment(0)]);
}

#[test]
fn each_fragment_is_synced_before_it_is_acknowledged_where_that_is_the_policy() {
    if Command::new("strace").arg("-V").stdout(Stdio::null()).status().is_err() {
        eprintln!("!!!! SKIPPED: `strace` is not installed, which shows what is synced");
        return;
    }
    for (sync, at_least) in [(Sync::Each, 5), (Sync::Second, 1), (Sync::Never, 0)] {
        let folder = tempfile::tempdir().unwrap();
        let (path, trace) = (folder.path().join("call.journal"), folder.path().join("trace"));
        let write = child("write 5", &path, sync);
        let mut traced = Command::new("strace");
        traced.args(["-f", "-y", "-s", "16", "-e", "trace=write,fdatasync,fsync", "-o"]).arg(&trace);
        traced.arg(write.get_program()).args(write.get_args()).stdout(Stdio::null());
        traced.envs(write.get_envs().filter_map(|(name, value)| Some((name, value?))));
        let began = Instant::now();
        let said = String::from_utf8(traced.output().unwrap().stderr).unwrap();
        // What a slow machine syncs once a second, and at the end.
        let seconds = if sync == Sync::Second { began.elapsed().as_secs() as usize } else { 0 };
        assert_eq!(said.matches("acknowledged").count(), 5, "{said}");
        let calls: Vec<String> = fs::read_to_string(&trace).unwrap().lines().map(str::to_string).collect();
        let is = |call: &String, name: &str| call.contains(name) && call.contains("call.journal>");
        let synced = calls.iter().filter(|call| is(call, "fdatasync(")).count();
        assert!((at_least..=at_least + seconds).contains(&synced), "sync = {sync}, {synced} times: {calls:#?}");
        if sync == Sync::Each {
            let order: String = calls
                .iter()
                .filter_map(|call| match call {
                    call if is(call, "write(") => Some('w'),
                    call if is(call, "fdatasync(") => Some('s'),
                    call if call.contains("\"acknowledged") => Some('a'),
                    _ => None,
                })
                .collect();
            assert_eq!(order, "wsa".repeat(5), "{calls:#?}");
        }
    }
}
