#!/usr/bin/env python3
"""`kill -9` of the server, again and again, while two people speak: nothing that was shown or told may be lost, or be there twice.

    crash.py --bin PROGRAM --work FOLDER [--times 50] [--seed 1] [--model MODEL]

In: the program; FOLDER with what `run --prepare` installed, whose `venv` this runs with; how often. Out: a line a check, and what was counted;
exits with 1 where anything is wrong. Emulator of S3 and receiver of webhooks outlive the server.

The seed decides when it is killed, and whether the speakers come back in time, so that the session goes on, or stay away until it is over.
In half of the latter the server is killed about when the session ends and its transcript is stored. Now and then it is killed once more while
it starts.
"""

import argparse
import json
import random
import shutil
import sys
import threading
import time
from collections import Counter
from pathlib import Path

import emulators
from receiver import Receiver, WrongOrder
from service import Gone, Refused, Server, Speaker, nanos, say, watch
from speech import TESTDATA, pcm_of

TYPE, ID = "crash", "talk"
PATH = f"/video/call/{TYPE}/{ID}"
BUCKET = "transcripts"
TIMEOUT_S = 2
SPEED = 4
PAUSE = bytes(int(16_000 * 0.6) * 2)
AWAY, EARLY = 0.35, 0.15
# Seconds from the start until the kill: while people speak; while they are away, and then when the session ends.
LIVE, LONG, AT_END = (1.8, 4.4), (1.0, 4.5), (TIMEOUT_S - 0.1, TIMEOUT_S + 0.8)
# While it starts.
STARTING = (0.05, 0.6)
# The storage has a file, and says so this much later.
MOST_UPLOAD_S = 0.4
DRAIN_S = 60


def whole(event):
    """The same text for the same event, however it came."""
    return json.dumps(event, sort_keys=True)


def key(caption):
    return caption["speaker_id"], nanos(caption["start_time"]), caption["text"]


class Watcher:
    """Sees events, reconnects, and asks then for what it has missed.

    `events` are as they came; `finals` are the captions among them by id, `listed` those that it was told when it asked.
    """

    QUERY = {}

    def __init__(self, server, path=PATH):
        self.server, self.path, self.events, self.finals, self.listed = server, path, [], {}, {}
        self.problems, self.connections, self.catch_ups, self.session, self.of_session = [], 0, 0, None, []
        self.is_over = False
        self.thread = threading.Thread(target=self._run, daemon=True)
        self.thread.start()

    def stop(self):
        self.is_over = True
        self.thread.join(20)

    def _run(self):
        while not self.is_over:
            try:
                self._watch()
            except Gone:
                time.sleep(0.05)
            except Refused as error:
                self.problems.append(str(error))
                time.sleep(0.5)

    def _watch(self):
        connection, connection_id = watch(self.server, "watcher", **self.QUERY)
        ask = self.server.requests("watcher")
        try:
            self._is_in(self._session(ask("GET", self.path, connection_id=connection_id)))
            self.connections += 1
            self._catch_up(ask)
            while not self.is_over:
                try:
                    self._see(connection.next(0.5))
                except TimeoutError:
                    continue
        finally:
            connection.close()
            ask.close()

    @staticmethod
    def _session(answer):
        return answer["call"]["current_session_id"] or None

    def _is_in(self, session):
        if session != self.session:
            self.session, self.of_session = session, []

    def _see(self, event):
        if not event["type"].startswith("call."):
            return
        self.events.append(event)
        if event["type"] == "call.session_started":
            self._is_in(event["session_id"])
        elif event["type"] == "call.session_ended":
            self._is_in(None)
        elif event["type"] == "call.closed_caption":
            caption = event["closed_caption"]
            self.finals[caption["id"]] = caption
            self.of_session.append(caption["id"])

    def _catch_up(self, ask):
        """What was seen of the session that goes on is there once, in the same order."""
        if not self.session:
            return
        captions, query = [], {}
        while True:
            answer = ask("GET", f"{self.path}/closed_captions", **query)
            captions += answer["closed_captions"]
            if "next" not in answer:
                break
            query = {"next": answer["next"]}
        if self._session(ask("GET", self.path)) != self.session:
            return
        self.catch_ups += 1
        ids = [caption["id"] for caption in captions]
        if [one for one in ids if one in set(self.of_session)] != self.of_session:
            self.problems.append(f"closed_captions of session {self.session}: expected all of {self.of_session}, each once and in this order, got {ids}")
        for caption in captions:
            self.listed[caption["id"]] = caption
            if (seen := self.finals.get(caption["id"])) and key(seen) != key(caption):
                self.problems.append(f"closed_captions: expected {seen}, got {caption}")


class Checks:
    """A line a check."""

    def __init__(self):
        self.failed = 0

    def none(self, what, wrong):
        """That a list of what is wrong is empty."""
        wrong = list(wrong)
        if wrong:
            self.failed += 1
            say(f"FAIL crash: {what}: expected none, got {len(wrong)}: {'; '.join(map(str, wrong[:5]))}"[:3000])
        else:
            say(f"ok   crash: {what}")

    def equal(self, what, expected, got):
        self.none(what, [] if expected == got else [f"expected {expected}, got {got}"])


def recordings(more):
    """What each speaker says, with pauses."""
    files = sorted(TESTDATA.glob("en-*.flac")) + sorted(TESTDATA.glob("austen-*.flac"))
    files += sorted((more / "en").glob("*.flac"))[:10] if more else []
    parts = [pcm_of(file) + PAUSE for file in files]
    return [b"".join(parts), b"".join(parts[2:] + parts[:2])]


def config(s3):
    return f"""
hooks_to_private_addresses = true
default_storage = "s3"
[storages.s3]
storage_type = "s3"
bucket = "{BUCKET}"
aws_s3 = {{ s3_region = "{s3.region}", s3_api_key = "{s3.key}", s3_secret = "{s3.secret}", s3_custom_endpoint_url = "{s3.url}" }}
"""


def late(s3, seed):
    """The storage answers a moment behind what it did, so that kills come between."""
    drawn, handle = random.Random(seed), s3.front.handle

    def answer(request):
        done = handle(request)
        time.sleep(drawn.uniform(0, MOST_UPLOAD_S))
        return done

    s3.front.handle = answer


def set_up(server, receiver):
    ask = server.requests()
    segments = {"max_speech_caption_ms": 5000, "silence_duration_ms": 300}
    transcription = {"mode": "auto-on", "closed_caption_mode": "auto-on", "speech_segment_config": segments}
    ask("POST", "/api/v2/video/calltypes", {"name": TYPE, "settings": {
        "transcription": transcription, "session": {"inactivity_timeout_seconds": TIMEOUT_S}}})
    hook = {"id": "hook", "hook_type": "webhook", "webhook_url": receiver.url, "enabled": True, "rfc3339": True}
    ask("PATCH", "/api/v2/app", {"event_hooks": [hook]})
    ask("POST", f"/api/v2{PATH}", {"data": {"created_by_id": "host"}})
    ask.close()


def kill_again_and_again(server, speakers, drawn, times):
    """Out: how often the speakers stayed away, and how often it was killed while it started."""
    counts, is_away, began = Counter(), False, time.monotonic()
    for number in range(1, times + 1):
        spans = [LONG, AT_END] if is_away else [LIVE]
        time.sleep(drawn.uniform(*drawn.choice(spans)))
        server.kill()
        is_away = drawn.random() < AWAY
        counts["away"] += is_away
        for speaker in speakers:
            speaker.wanted.clear() if is_away else speaker.wanted.set()
        if drawn.random() < EARLY:
            server.spawn()
            time.sleep(drawn.uniform(*STARTING))
            server.kill()
            counts["killed while it starts"] += 1
        server.start()
        if number % 10 == 0:
            say(f"{number} kills, {time.monotonic() - began:.0f} s")
    return counts


def runs(hooks, kind):
    return [event["egress_id"] for event in hooks if event["type"] == f"call.transcription_{kind}"]


def finish(server, speakers, receiver):
    """Everybody leaves, and all is finished and told. Out: what is left where it is not."""
    for speaker in speakers:
        speaker.wanted.set()
    time.sleep(2)
    for speaker in speakers:
        speaker.leave()
    ask, end, left = server.requests(), time.monotonic() + DRAIN_S, None
    while time.monotonic() < end:
        session = ask("GET", f"/api/v2{PATH}")["call"]["current_session_id"]
        letters = ask("GET", "/api/v2/app/dead_letters")
        hooks = [post.event for post in receiver.all()]
        open_runs = set(runs(hooks, "started")) - set(runs(hooks, "ready")) - set(runs(hooks, "failed"))
        left = {"session": session, "waiting": letters["waiting"], "runs": open_runs}
        if not any(left.values()):
            break
        time.sleep(0.2)
    return ask, left


def main():
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    path = lambda text: Path(text).resolve()
    parser.add_argument("--bin", required=True, type=path, help="the program cuewire")
    parser.add_argument("--work", required=True, type=path, help="a folder with what `run --prepare` installed")
    parser.add_argument("--data", type=path, help="a folder for data and log, which is emptied; default: WORK/crash")
    parser.add_argument("--times", type=int, default=50, help="kills")
    parser.add_argument("--seed", type=int, default=1)
    parser.add_argument("--model", help="as of `cuewire serve`; default: the built-in one")
    parser.add_argument("--speech", type=path, help="more recordings: a folder with en/*.flac")
    parser.add_argument("--speed", type=float, default=SPEED, help="how many times as fast as people speak")
    args = parser.parse_args()
    folder = args.data or args.work / "crash"
    shutil.rmtree(folder, ignore_errors=True)
    folder.mkdir(parents=True)
    began = time.monotonic()
    with emulators.S3(args.work) as s3:
        s3.make(BUCKET)
        late(s3, args.seed)
        server = Server(args.bin, folder, config(s3), args.model)
        with Receiver(server.secret) as receiver:
            try:
                good = hold(server, s3, receiver, args)
            finally:
                if server.process and server.process.poll() is None:
                    server.stop()
    say(f"{'pass' if good else 'FAIL'} crash: {args.times} kills, seed {args.seed}, {time.monotonic() - began:.0f} s")
    sys.exit(0 if good else 1)


def hold(server, s3, receiver, args):
    drawn = random.Random(args.seed)
    server.start()
    set_up(server, receiver)
    watcher = Watcher(server)
    speakers = [Speaker(server, f"{TYPE}/{ID}", user_id, pcm, args.speed) for user_id, pcm in zip(("alice", "bob"), recordings(args.speech))]
    for speaker in speakers:
        speaker.wanted.set()
    counts = kill_again_and_again(server, speakers, drawn, args.times)
    ask, left = finish(server, speakers, receiver)
    time.sleep(0.5)
    watcher.stop()
    counts = {"kills": args.times, **counts, "joins": sum(speaker.joins for speaker in speakers)}
    return check(ask, left, server, s3, receiver, watcher, speakers, counts)


def check(ask, left, server, s3, receiver, watcher, speakers, counts):
    checks = Checks()
    checks.none("all is finished and told", [f"{name}: {value}" for name, value in left.items() if value])
    checks.none("the speakers are let in", [problem for speaker in speakers for problem in speaker.problems])
    checks.none("the watcher is answered, and can catch up", watcher.problems)
    hooks = of_hooks(checks, receiver, watcher)
    files = of_files(checks, ask, s3, hooks)
    of_lines(checks, files, watcher)
    letters = ask("GET", "/api/v2/app/dead_letters")
    checks.none("dead letters", letters["dead_letters"])
    said = server.said()
    checks.none("the server panics", [line for line in said.splitlines() if "panicked" in line])
    posts = receiver.all()
    counts |= {
        "sessions": sum(event["type"] == "call.session_started" for event in hooks), "files": len(files),
        "lines": sum(text.count(b"\n") for text in files.values()), "finals seen": len(watcher.finals),
        "finals listed": len(watcher.listed), "catch-ups": watcher.catch_ups, "connections of the watcher": watcher.connections,
        "events seen": len(watcher.events), "events told": len(hooks), "told again": len(posts) - len(hooks),
        "uploads refused as there": sum(status == 412 for method, _, status in s3.seen if method == "PUT"),
        "warnings": sum(" WARN " in line for line in said.splitlines()), "errors": sum(" ERROR " in line for line in said.splitlines()),
    }
    say(json.dumps(counts))
    return not checks.failed


def of_hooks(checks, receiver, watcher):
    """Out: the events that the hook was told, each once, in order."""
    checks.none("what is wrong with single webhooks", receiver.problems())
    try:
        hooks = [post.event for post in receiver.once()]
    except WrongOrder as error:
        checks.none("other bodies under the same id", [error])
        return []
    told = [whole(event) for event in hooks]
    checks.none("the same event under two ids", [text for text, count in Counter(told).items() if count > 1])
    seen = [whole(event) for event in watcher.events]
    checks.none("events that the watcher saw twice", [text for text, count in Counter(seen).items() if count > 1])
    places = {text: place for place, text in enumerate(told)}
    checks.none("events that the watcher saw and the hook was not told", [text for text in seen if text not in places])
    order = [places[text] for text in seen if text in places]
    checks.none("events that the hook was told in another order", [
        f"{told[one]} behind {told[other]}" for other, one in zip(order, order[1:]) if one < other])
    return hooks


def of_files(checks, ask, s3, hooks):
    """Out: {name: bytes} of the storage."""
    started, ready, files = runs(hooks, "started"), runs(hooks, "ready"), s3.list(BUCKET)
    checks.none("runs that were started twice", [one for one, count in Counter(started).items() if count > 1])
    checks.equal("each run has its file, and that is told once", sorted(started), sorted(ready))
    checks.none("runs that failed", runs(hooks, "failed"))
    names = {event["egress_id"]: event["call_transcription"]["filename"] for event in hooks if event["type"] == "call.transcription_ready"}
    checks.equal("the storage has these files and no other", sorted(names.values()), sorted(files))
    listed = ask("GET", f"/api/v2{PATH}/transcriptions")["transcriptions"]
    checks.equal("so has the list", sorted(names.values()), sorted(one["filename"] for one in listed))
    stored = Counter(path for method, path, status in s3.seen if method == "PUT" and status < 300)
    checks.none("files that were written again", [path for path, count in stored.items() if count > 1])
    checks.none("other requests to the storage", [one for one in s3.seen if one[0] not in ("PUT", "GET") or (one[2] >= 300 and one[2] != 412)])
    return files


def of_lines(checks, files, watcher):
    found, torn = Counter(), []
    for name, text in files.items():
        if text and not text.endswith(b"\n"):
            torn.append(f"{name} ends with {text[-80:]!r}")
        for line in text.splitlines():
            try:
                found[key(json.loads(line))] += 1
            except (ValueError, KeyError, TypeError) as error:
                torn.append(f"{name}: {error!r}: {line[:200]!r}")
    checks.none("torn lines", torn)
    checks.none("lines that are there twice", [one for one, count in found.items() if count > 1])
    checks.none("finals that the watcher saw and no transcript has", [one for one in watcher.finals.values() if not found[key(one)]])
    checks.none("finals that the watcher was listed and no transcript has", [one for one in watcher.listed.values() if not found[key(one)]])


if __name__ == "__main__":
    main()
