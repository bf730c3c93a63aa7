#!/usr/bin/env python3
"""Clients that are slow, or say nothing, or read nothing, and what becomes of one that is well.

    slow.py --bin PROGRAM --work FOLDER [--silent 10000] [--seconds 20] [--few-places]

At once: connections that say nothing, heads and bodies that come a byte at a time, clients that ask and read no answer, clients that
watch a call and read no event. With the server's own limits, but for those of bodies and answers, which are short so that all of them are
reached; and, with --few-places, also with places for a tenth of the connections that say nothing, or 1000.
Meanwhile one client asks and changes something, and one watches. In: the program; a folder for data and logs. Out: an object of JSON on
standard output; exits with 1 where the healthy client waits for more than 100 ms at p99, misses an event, one that is slow is not closed
in time, or the server's memory grows beyond its bound. All on the loopback interface; the load is made by processes of its own, on the same machine.
"""

import argparse
import json
import multiprocessing
import os
import resource
import selectors
import shutil
import socket
import sys
import threading
import time
from pathlib import Path
from urllib.parse import urlencode

from service import Gone, Refused, Server, watch

CALL = "/video/call/default/slow"
P99_MS, GROWTH_MIB = 100, 512
HEADS, BODIES, DEAF = 200, 200, 20
# Within which the server closes those that are slow, and how much later that may be seen on a busy machine.
HEAD_S, BODY_S, WRITE_S, LATE_S = 10, 4, 4, 4
LIMITS = f"[limits]\nrefuse_overload = false\nbody_s = {BODY_S}\nwrite_s = {WRITE_S}\n"
# Of the system's descriptors, what the server and this need beside the connections.
SPARE_FILES = 1000
FORK = multiprocessing.get_context("fork")


def quantiles(seconds):
    ordered = sorted(1000 * one for one in seconds)
    at = lambda part: round(ordered[min(len(ordered) - 1, int(part * len(ordered)))], 2)
    return {"count": len(ordered), "p50": at(0.5), "p99": at(0.99), "max": at(1)}


class Load:
    """A process that does `work(server, number, until, counts)`."""

    def __init__(self, work, server, number, until):
        self.counts = FORK.Array("l", 4)
        self.process = FORK.Process(target=self._run, args=(work, server, number, until), daemon=True)
        self.process.start()

    def _run(self, work, server, number, until):
        work(server, number, until, self.counts)

    def end(self):
        """How many it opened, how many the server closed, how many were open at a time at most, and for how long one was, in ms."""
        self.process.join(30)
        if self.process.is_alive():
            self.process.kill()
        return dict(zip(("opened", "closed", "most", "longest_ms"), self.counts))


def keep(server, number, until, counts, said, each_s):
    """Keeps so many connections open; each says `said`, and where that is so a byte more each time."""
    slots, drips = selectors.DefaultSelector(), []
    def saw(since):
        counts[3] = max(counts[3], int(1000 * (time.monotonic() - since)))
    def open_one(at):
        one = socket.socket()
        # One address has too few ports for all that are closed meanwhile.
        one.bind((f"127.0.1.{1 + at % 200}", 0))
        one.setblocking(False)
        one.connect_ex(("127.0.0.1", server.port))
        slots.register(one, selectors.EVENT_READ | (selectors.EVENT_WRITE if said else 0), time.monotonic())
        counts[0] += 1
        return one
    opened = 0
    next_drip = time.monotonic() + (each_s or 3600)
    while time.monotonic() < until:
        # Not all at once: the system's queue of those to be accepted is short.
        for _ in range(min(200, number - len(slots.get_map()))):
            open_one(opened)
            opened += 1
        counts[2] = max(counts[2], len(slots.get_map()))
        for key, events in slots.select(0.02):
            one = key.fileobj
            if events & selectors.EVENT_READ:
                try:
                    over = not one.recv(65536)
                except OSError:
                    over = True
                if over:
                    slots.unregister(one)
                    one.close()
                    counts[1] += 1
                    saw(key.data)
                    continue
            if events & selectors.EVENT_WRITE:
                slots.modify(one, selectors.EVENT_READ, key.data)
                drips.append(one)
                try:
                    one.send(said)
                except OSError:
                    pass
        if time.monotonic() > next_drip:
            next_drip += each_s
            drips = [one for one in drips if one.fileno() >= 0]
            for one in drips:
                try:
                    one.send(b"x")
                except OSError:
                    pass
    for key in list(slots.get_map().values()):
        saw(key.data)
        key.fileobj.close()


def head(server, method, path, token):
    return f"{method} {path}?{urlencode({'api_key': server.key})} HTTP/1.1\r\nHost: x\r\nAuthorization: {token}\r\n"


def silent(server, number, until, counts):
    keep(server, number, until, counts, b"", None)


def slow_heads(server, number, until, counts):
    keep(server, number, until, counts, head(server, "GET", CALL, server.token()).encode(), 0.5)


def slow_bodies(server, number, until, counts):
    said = head(server, "PATCH", CALL, server.user_token("slow")) + "Content-Length: 100000\r\n\r\n{"
    keep(server, number, until, counts, said.encode(), 0.5)


def deaf(server, number, until, counts):
    """Asks for large answers, and reads none until the server should have closed; then what is on its way, to the end."""
    asked = (head(server, "GET", CALL, server.token()) + "\r\n").encode() * 100
    held = []
    for _ in range(number):
        one = socket.create_connection(("127.0.0.1", server.port))
        one.setblocking(False)
        try:
            one.send(asked)
        except OSError:
            pass
        held.append(one)
        counts[0] += 1
    counts[2] = len(held)
    time.sleep(WRITE_S + LATE_S)
    for one in held:
        one.settimeout(1)
        try:
            while one.recv(1 << 20):
                pass
        except TimeoutError:
            continue
        except OSError:
            pass
        counts[1] += 1
    time.sleep(max(0, until - time.monotonic()))


def deaf_watchers(server, number, until, counts):
    """Watch, and read nothing."""
    held = []
    for i in range(number):
        connection, name = watch(server, f"deaf-{i}")
        connection.socket.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, 4096)
        server.requests(f"deaf-{i}")("GET", CALL, connection_id=name)
        held.append((connection, name, f"deaf-{i}"))
        counts[0] += 1
    counts[2] = len(held)
    time.sleep(max(0, until - 1 - time.monotonic()))
    for connection, name, user in held:
        try:
            server.requests(user)("GET", CALL, connection_id=name)
        except Refused as error:
            # 46: the connection is not there any more.
            counts[1] += '"code":46' in str(error)


def healthy(server, seconds, of):
    """Asks, and changes something, 50 times a second; each time over a connection of its own once in ten."""
    ask, took, until = server.requests(), [], time.monotonic() + seconds
    for i in range(1 << 30):
        began = time.monotonic()
        if began > until:
            break
        if i % 10 == 0:
            ask.close()
        what = ("PATCH", f"{CALL}-2", {"custom": {"number": i}}) if i % 5 == 0 else ("GET", f"{CALL}-2")
        try:
            ask(*what)
        except Gone:
            # Between two requests a connection waits like any other, and may be closed for others: clients connect again.
            ask(*what)
        took.append(time.monotonic() - began)
        time.sleep(max(0, began + 0.02 - time.monotonic()))
    ask.close()
    of.send(took)


def measured(server, seconds):
    """How long a client waits, measured by a process of its own; what it changed comes to who watches."""
    here, there = FORK.Pipe()
    process = FORK.Process(target=healthy, args=(server, seconds, there), daemon=True)
    process.start()
    there.close()
    try:
        took = here.recv()
    except EOFError:
        raise Gone("the healthy client was refused, or closed") from None
    process.join(10)
    return took


def run(args, name, config, silent_ones):
    server = Server(args.bin, args.work / name, config)
    server.start()
    try:
        return under_load(args, server, silent_ones)
    finally:
        server.stop()


def under_load(args, server, silent_ones):
    ask = server.requests()
    for path in (CALL, f"{CALL}-2"):
        ask("POST", path, {"data": {"created_by_id": "host", "custom": {"text": "x" * 100_000}}})
    watcher, name = watch(server, "host")
    server.requests("host")("GET", f"{CALL}-2", connection_id=name)
    events, is_over = [], threading.Event()

    def hear():
        said_at = time.monotonic()
        while not is_over.is_set():
            if time.monotonic() > said_at + 20:
                watcher.send([{"type": "health.check"}])
                said_at = time.monotonic()
            try:
                event = watcher.next(0.5)
                if event["type"] == "call.updated":
                    events.append(event["call"]["custom"].get("number"))
            except TimeoutError:
                pass
            except Gone as error:
                events.append(str(error))
                return

    hearing = threading.Thread(target=hear, daemon=True)
    hearing.start()
    alone = measured(server, 3)
    before, most = server.rss_mib(), [0]

    def memory():
        while not is_over.is_set():
            most[0] = max(most[0], server.rss_mib())
            time.sleep(0.1)

    def talk():
        """Events that nobody of those who watch reads."""
        speaks = server.requests()
        for i in range(1 << 30):
            if is_over.wait(0.05):
                return
            try:
                speaks("PATCH", CALL, {"custom": {"number": i, "text": "x" * 100_000}})
            except Gone:
                pass

    until = time.monotonic() + args.seconds + 5
    kinds = [("deaf watchers", deaf_watchers, DEAF), ("deaf", deaf, DEAF), ("heads", slow_heads, HEADS), ("bodies", slow_bodies, BODIES),
             ("silent", silent, silent_ones)]
    loads = {kind: Load(work, server, number, until) for kind, work, number in kinds}
    others = [threading.Thread(target=work, daemon=True) for work in (memory, talk)]
    [other.start() for other in others]
    # Until they are there.
    time.sleep(3)
    loaded = measured(server, args.seconds)
    counts = {kind: load.end() for kind, load in loads.items()}
    time.sleep(0.5)
    is_over.set()
    [other.join(5) for other in [*others, hearing]]
    changes = len(range(0, len(alone), 5)) + len(range(0, len(loaded), 5))
    return {
        "alone_ms": quantiles(alone), "loaded_ms": quantiles(loaded), "connections": counts, "changes": changes, "events": len(events),
        "rss_mib": {"before": before, "most": most[0], "after": server.rss_mib()}, "panics": server.said().count("panicked"),
        "ready": ready(server),
    }


def ready(server):
    with socket.create_connection(("127.0.0.1", server.port), 10) as one:
        one.sendall(b"GET /readyz HTTP/1.1\r\nHost: x\r\nConnection: close\r\n\r\n")
        return one.recv(64).split()[1].decode()


def wrong(report, silent_ones):
    """What is not as it should be, where so many are to say nothing at a time."""
    counts = report["connections"]
    checks = [
        (f"p99 at most {P99_MS} ms", report["loaded_ms"]["p99"] <= P99_MS),
        (f"memory grows by at most {GROWTH_MIB} MiB", report["rss_mib"]["most"] - report["rss_mib"]["before"] <= GROWTH_MIB),
        ("who watches hears of every change", report["events"] == report["changes"]),
        ("as many as should be say nothing", counts["silent"]["most"] >= silent_ones),
        *((f"{kind} are closed within {within_s} s, or soon after", counts[kind]["closed"] > 0 and counts[kind]["longest_ms"] < 1000 * (within_s + LATE_S))
          for kind, within_s in (("silent", HEAD_S), ("heads", HEAD_S), ("bodies", BODY_S))),
        (f"those who read no answer are closed within {WRITE_S} s, or soon after", counts["deaf"]["closed"] == DEAF),
        ("those who watch and read nothing are closed", counts["deaf watchers"]["closed"] == DEAF),
        ("nothing panics", report["panics"] == 0),
        ("the server is ready", report["ready"] == "200"),
    ]
    return [what for what, is_so in checks if not is_so]


def main():
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--bin", required=True, type=lambda path: Path(path).resolve())
    parser.add_argument("--work", required=True, type=lambda path: Path(path).resolve())
    parser.add_argument("--silent", type=int, default=10_000)
    parser.add_argument("--seconds", type=int, default=20)
    parser.add_argument("--few-places", action="store_true", help="also with few places, of which those that say nothing take what they get")
    args = parser.parse_args()
    soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    if hard < args.silent + SPARE_FILES:
        sys.exit(f"FAIL slow: {args.silent} connections need as many descriptors, and the system allows {hard}: give fewer with --silent")
    resource.setrlimit(resource.RLIMIT_NOFILE, (hard, hard))
    args.work = args.work / "slow"
    shutil.rmtree(args.work, ignore_errors=True)
    os.makedirs(args.work)
    # Bodies and clients that are known serve, and keep their places: there are more places than that.
    places = max(args.silent // 10, 1000)
    runs = {"own limits": LIMITS} | ({"few places": f"{LIMITS}connections = {places}\n"} if args.few_places else {})
    report = {what: run(args, f"run-{i}", config, args.silent) for i, (what, config) in enumerate(runs.items())}
    print(json.dumps(report, indent=2))
    silent_ones = {"own limits": 0.95 * args.silent, "few places": places / 2}
    failed = [f"FAIL slow, {what}: {one}" for what, of in report.items() for one in wrong(of, silent_ones[what])]
    [print(line, file=sys.stderr) for line in failed]
    sys.exit(1 if failed else 0)


if __name__ == "__main__":
    main()
