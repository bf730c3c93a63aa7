#!/usr/bin/env python3
"""A call of many who speak for long: whether memory stays, captions keep coming as soon, and the transcript is whole.

    soak.py --bin PROGRAM --work FOLDER [--model MODEL] [--seconds 1800] [--participants 8] [--call FOLDER …]

In: the program; a folder for data and log; recordings, said again and again. Out: an object of JSON on standard output: what the server held
and how late finals were, in each third of the time, and what the transcript has; what happens meanwhile on standard error. Exits with 1 where
the last third has 2 % more memory than the first, finals are later by more than a tenth and 10 ms, or the transcript is not what was shown.

Runs with the `venv` that `run --prepare` makes. Server and load share the machine: the numbers are of both.
"""

import argparse
import json
import shutil
import subprocess
import sys
import threading
import time
from collections import Counter
from pathlib import Path
from statistics import median
from urllib.request import urlopen

from crash import Watcher, key
from load import note, quantiles, recordings
from service import Server, nanos

# Before, threads, caches and the allocator find their size.
WARM_UP_S = 60
SAMPLE_S = 2
MORE_MEMORY, LATER, LATER_MS = 0.02, 0.10, 10


class Seen(Watcher):
    """A watcher that notes how late each final is: from the end of the silence until it is here."""

    # Ledgers are told to those who want interims.
    QUERY = {"interim": "1"}

    def __init__(self, server, path):
        self.late = []
        super().__init__(server, path)

    def _see(self, event):
        now = time.time_ns()
        super()._see(event)
        if event["type"] == "call.closed_caption":
            self.late.append((time.monotonic(), (now - nanos(event["ledger"]["silence_reached"])) / 1e6))
        # An hour of interims is not kept.
        self.events.clear()


def speaking(args, server):
    command = [args.bin, "bench", "calls", "--url", server.base, "--participants", str(args.participants), "--watchers", "1",
               "--seconds", str(args.seconds), "--transcription"]
    for folder in args.call or [recordings(args)]:
        command += ["--call", folder]
    return subprocess.Popen(command, env=server.env, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True)


def thirds(values, began, seconds):
    """What lies in each third of the time behind the warm-up."""
    warm = min(WARM_UP_S, seconds / 10)
    length = (seconds - warm) / 3
    return [[value for at, value in values if begin <= at - began - warm < begin + length] for begin in (0, length, 2 * length)]


def transcript(server, path, seconds=60):
    """The lines of the call's one transcript, once it is there."""
    ask, end = server.requests(), time.monotonic() + seconds
    while time.monotonic() < end:
        listed = ask("GET", f"/api/v2{path}/transcriptions")["transcriptions"]
        if listed:
            with urlopen(listed[0]["url"]) as file:
                return len(listed), [json.loads(line) for line in file.read().splitlines()]
        time.sleep(0.5)
    return 0, []


def call_of(server, work):
    """The path of the one call there is, as soon as there is."""
    ask = server.requests()
    while not (found := ask("POST", "/api/v2/video/calls", {"limit": 1})["calls"]):
        if work.poll() is not None:
            raise RuntimeError(f"bench calls: expected that it runs, got {work.returncode} {work.stderr.read()[-1000:]}")
        time.sleep(0.1)
    return f"/video/call/{found[0]['call']['type']}/{found[0]['call']['id']}"


def soak(args, server):
    held, work, told = [], speaking(args, server), {}
    began = time.monotonic()
    watcher = Seen(server, call_of(server, work))
    reading = threading.Thread(target=lambda: told.update(zip(("out", "err"), work.communicate())), daemon=True)
    reading.start()
    while reading.is_alive():
        held.append((time.monotonic(), server.rss_mib()))
        if len(held) % (60 // SAMPLE_S) == 0:
            note(f"{time.monotonic() - began:.0f} s: {held[-1][1]} MiB, {len(watcher.finals)} finals")
        reading.join(SAMPLE_S)
    files, lines = transcript(server, watcher.path)
    watcher.stop()
    if work.returncode != 0:
        raise RuntimeError(f"bench calls: expected that it succeeds, got {work.returncode} {told['err'][-1000:]}")
    memory, late = thirds(held, began, args.seconds), thirds(watcher.late, began, args.seconds)
    result = {
        "seconds": args.seconds, "participants": args.participants, "bench": json.loads(told["out"]),
        "memory_mib": [{"median": median(part), "max": max(part)} for part in memory], "final_ms": [quantiles(part, 1) for part in late],
        "finals": len(watcher.finals), "lines": len(lines), "cpu_s": round(server.cpu_s(), 1),
    }
    result["wrong"] = wrong(result, files, lines, watcher, server.said())
    return result


def wrong(result, files, lines, watcher, said):
    found = list(watcher.problems)
    first, _, last = (part["median"] for part in result["memory_mib"])
    if last > first * (1 + MORE_MEMORY):
        found.append(f"memory: expected at most {MORE_MEMORY:.0%} more than {first} MiB, got {last}")
    for name in ("p50", "p95"):
        first, _, last = (part[name] for part in result["final_ms"])
        if last > first * (1 + LATER) + LATER_MS:
            found.append(f"finals, {name}: expected about {first} ms as at the beginning, got {last}")
    if files != 1:
        found.append(f"transcripts: expected one, got {files}")
    seen, there = Counter(map(key, watcher.finals.values())), Counter(map(key, lines))
    found += [f"shown, and not in the transcript: {one}" for one in (seen - there)]
    found += [f"in the transcript, and never shown: {one}" for one in (there - seen)]
    starts = [line["start_time"] for line in lines]
    if starts != sorted(starts):
        found.append("the transcript is not in the order of time")
    if result["bench"]["missing"]:
        found.append(f"finals that the bench's watcher missed: {result['bench']['missing']}")
    return found + [line for line in said.splitlines() if "panicked" in line or " ERROR " in line]


def main():
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    path = lambda text: Path(text).resolve()
    parser.add_argument("--bin", required=True, type=path, help="the program cuewire, a release build")
    parser.add_argument("--work", required=True, type=path, help="a folder for data and log, which is WORK/soak and emptied")
    parser.add_argument("--model", help="as of `cuewire serve`; default: the built-in one")
    parser.add_argument("--seconds", type=int, default=1800)
    parser.add_argument("--participants", type=int, default=8)
    parser.add_argument("--call", type=path, action="append", help="a folder of recordings; can be given again; default: English ones of the repository")
    args = parser.parse_args()
    args.data, args.speech = args.work / "soak", None
    shutil.rmtree(args.data, ignore_errors=True)
    server = Server(args.bin, args.data, model=args.model)
    server.start()
    try:
        result = soak(args, server)
    finally:
        server.stop()
    print(json.dumps(result, indent=2))
    for one in result["wrong"][:20]:
        print(f"FAIL soak: {one}"[:1000], file=sys.stderr)
    sys.exit(1 if result["wrong"] else 0)


if __name__ == "__main__":
    main()
