#!/usr/bin/env python3
"""What hooks and the journal cost: measurements of a `cuewire serve` of their own.

    load.py --bin PROGRAM --work FOLDER SCENARIO…

    events   200 changes of calls a second, without hooks, then with three: CPU, and how late each hook is told
    waiting  requests, captions and an idle server, with and without 100 000 events that wait for an endpoint that is down
    down     captions, with a hook that is down for a minute and slow then, and without a hook; whether it is told everything, in order
    sync     changes a second, as the journal is synced: each, second, never

In: the program; a folder for data and logs; runs with the `venv` that `run --prepare` makes. Out: an object of JSON a scenario, on standard
output; what happens meanwhile on standard error. Exits with 1 where events are missing or in disorder. Server and load share the machine:
the numbers are of both.
"""

import argparse
import asyncio
import contextlib
import json
import multiprocessing
import shutil
import subprocess
import sys
import threading
import time
from collections import Counter, defaultdict
from pathlib import Path
from statistics import median

from crash import Watcher, whole
from ports import free_port
from receiver import Receiver
from service import Server, nanos
from speech import TESTDATA

PRIVATE = "hooks_to_private_addresses = true\n"
THREADS = 8
APP = "/api/v2/app"


def note(line):
    print(f"{time.strftime('%H:%M:%S', time.gmtime())} {line}", file=sys.stderr, flush=True)


def quantiles(values, digits=2):
    """Of milliseconds."""
    ordered = sorted(values)
    at = lambda part: round(ordered[min(len(ordered) - 1, int(part * len(ordered)))], digits)
    return {"count": len(ordered), **({"p50": at(0.5), "p95": at(0.95), "p99": at(0.99), "max": at(1)} if ordered else {})}


class Sink(asyncio.Protocol):
    """Answers every request at once, and notes when it came."""

    def __init__(self, posts):
        self.posts, self.left = posts, b""

    def connection_made(self, transport):
        self.transport = transport

    def data_received(self, data):
        self.left += data
        while b"\r\n\r\n" in self.left:
            head, _, rest = self.left.partition(b"\r\n\r\n")
            headers = dict(line.lower().split(b": ", 1) for line in head.split(b"\r\n")[1:])
            length = int(headers.get(b"content-length", 0))
            if len(rest) < length:
                return
            self.posts.append((headers[b"x-webhook-id"], time.time_ns(), rest[:length]))
            self.left = rest[length:]
            self.transport.write(b"HTTP/1.1 200 OK\r\nContent-Length: 0\r\n\r\n")


def sink(pipe):
    """A process of its own. Says its port; for each word that comes, what came so far: (id, created_at, when it came)."""

    async def serve():
        posts, loop = [], asyncio.get_running_loop()
        server = await loop.create_server(lambda: Sink(posts), "127.0.0.1", 0, backlog=128)
        pipe.send(server.sockets[0].getsockname()[1])
        ended = loop.create_future()

        def asked():
            try:
                pipe.recv()
            except EOFError:
                loop.remove_reader(pipe.fileno())
                return ended.set_result(None)
            pipe.send([(webhook_id, json.loads(body)["created_at"], at) for webhook_id, at, body in posts])

        loop.add_reader(pipe.fileno(), asked)
        await ended

    asyncio.run(serve())


@contextlib.contextmanager
def sinks(count):
    """[(url, function that gives what came)]."""
    context, all_of_them = multiprocessing.get_context("spawn"), []
    for _ in range(count):
        ours, theirs = context.Pipe()
        process = context.Process(target=sink, args=(theirs,), daemon=True)
        process.start()
        theirs.close()
        all_of_them.append((f"http://127.0.0.1:{ours.recv()}/", ours, process))

    def asked(pipe):
        pipe.send("posts")
        return pipe.recv()

    try:
        yield [(url, lambda pipe=pipe: asked(pipe)) for url, pipe, _ in all_of_them]
    finally:
        for _, pipe, process in all_of_them:
            pipe.close()
            process.join(5)


@contextlib.contextmanager
def serving(args, name, config=""):
    server = Server(args.bin, args.data / name, config, args.model)
    server.start()
    try:
        yield server
    finally:
        if server.process.poll() is None:
            server.stop()


def calls_of(server, count):
    """Paths of new calls."""
    ask, paths = server.requests(), [f"/api/v2/video/call/default/load-{i}" for i in range(count)]
    for path in paths:
        ask("POST", path, {"data": {"created_by_id": "host"}})
    ask.close()
    return paths


def set_hooks(server, urls, **settings):
    hooks = [{"id": f"hook-{i}", "hook_type": "webhook", "webhook_url": url, "enabled": True, **settings} for i, url in enumerate(urls)]
    server.requests()("PATCH", APP, {"event_hooks": hooks})
    return hooks


def waiting(server):
    return server.requests()("GET", f"{APP}/dead_letters", limit=1)["waiting"]


def drained(server, seconds):
    """Seconds until nothing waits; None where that is more."""
    began = time.monotonic()
    while waiting(server):
        if time.monotonic() > began + seconds:
            return None
        time.sleep(0.1)
    return round(time.monotonic() - began, 1)


def patch(ask, path, number):
    """A change; how many milliseconds it took."""
    began = time.perf_counter()
    ask("PATCH", path, {"custom": {"number": number}})
    return (time.perf_counter() - began) * 1000


def threads(count, of_one):
    """Runs `of_one(i)`, which gives milliseconds, in threads; all of theirs. What one raises is raised."""
    results = [None] * count

    def run(i):
        try:
            results[i] = of_one(i)
        except Exception as error:
            results[i] = error

    running = [threading.Thread(target=run, args=(i,)) for i in range(count)]
    for one in running:
        one.start()
    for one in running:
        one.join()
    for result in results:
        if isinstance(result, Exception):
            raise result
    return [ms for result in results for ms in result]


def paced(server, paths, rate, seconds):
    """So many changes a second; milliseconds of each."""
    began = time.monotonic() + 0.2

    def of_one(i):
        ask, took = server.requests(), []
        for number in range(i, int(rate * seconds), THREADS):
            if (early := began + number / rate - time.monotonic()) > 0:
                time.sleep(early)
            took.append(patch(ask, paths[number % len(paths)], number))
        return took

    return threads(THREADS, of_one)


def cost(server, work):
    """What `work` gives, and beside it what the server spent meanwhile: seconds, CPU in percent of one core, RSS."""
    before, began = server.cpu_s(), time.monotonic()
    result = work()
    took = time.monotonic() - began
    return result, {"seconds": round(took, 1), "cpu_percent": round(100 * (server.cpu_s() - before) / took, 1), "rss_mib": server.rss_mib()}


def events(args):
    result = {"rate": args.rate, "seconds": args.seconds}
    with serving(args, "events", PRIVATE) as server, sinks(3) as receivers:
        paths = calls_of(server, 20)
        for name, urls in [("without_hooks", []), ("with_hooks", [url for url, _ in receivers])]:
            set_hooks(server, urls)
            note(f"events: {name}")
            took, spent = cost(server, lambda: paced(server, paths, args.rate, args.seconds))
            result[name] = {**spent, "requests_ms": quantiles(took), "requests_a_second": round(len(took) / spent["seconds"], 1)}
        result["drained_s"] = drained(server, 60)
        result["rss_mib"] = server.rss_mib()
        result["hooks"] = []
        for _, posts in receivers:
            came = posts()
            lag = [(at - created_at) / 1e6 for _, created_at, at in came]
            result["hooks"].append({"events": len({one for one, _, _ in came}), "again": len(came) - len({one for one, _, _ in came}), "lag_ms": quantiles(lag)})
    result["good"] = all(hook["events"] == args.rate * args.seconds for hook in result["hooks"])
    return result


def bench(args, server, seconds, participants=4):
    """`cuewire bench calls`: what it prints."""
    command = [args.bin, "bench", "calls", "--url", server.base, "--participants", str(participants), "--watchers", "1",
               "--seconds", str(seconds), "--call", recordings(args)]
    done = subprocess.run(command, env=server.env, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True)
    if done.returncode != 0:
        raise RuntimeError(f"bench calls: expected that it succeeds, got {done.returncode} {done.stderr[-1000:]}")
    return json.loads(done.stdout)


def recordings(args):
    """A folder of them."""
    folder = args.data / "recordings"
    if not folder.exists():
        folder.mkdir(parents=True)
        files = sorted((args.speech / "en").glob("*.flac"))[:8] if args.speech else [*TESTDATA.glob("en-*.flac"), *TESTDATA.glob("austen-*.flac")]
        for file in files:
            shutil.copy(file, folder)
    return folder


def fill(server, paths, most):
    """Until so many events wait."""
    is_enough = threading.Event()

    def of_one(i):
        ask, number, took = server.requests(), 0, []
        while not is_enough.is_set():
            took.append(patch(ask, paths[(i + number * THREADS) % len(paths)], number))
            number += 1
        return took

    def look():
        while (count := waiting(server)) < most:
            note(f"waiting: {count} so far")
            time.sleep(1)
        is_enough.set()

    threading.Thread(target=look, daemon=True).start()
    return len(threads(THREADS, of_one))


def waits(args):
    """A: the outbox is full; B: it is empty. Both have the same two hooks, one of which works; the measured changes are for both."""
    result = {"legs": []}
    with sinks(1) as [(good, _)]:
        dead = f"http://127.0.0.1:{free_port()}/"
        servers = {name: Server(args.bin, args.data / f"waiting-{name}", PRIVATE, args.model) for name in "AB"}
        for name, server in servers.items():
            server.start()
            paths = calls_of(server, args.calls)
            set_hooks(server, [good, dead])
            if name == "A":
                changes, spent = cost(server, lambda: fill(server, paths, args.waiting))
                result["fill"] = {"changes": changes, **spent}
            server.stop()
        for name in "ABAB":
            server = servers[name]
            leg = {"which": name, "start_s": round(server.start(), 2), "waiting": waiting(server)}
            note(f"waiting: {leg}")
            time.sleep(args.settle)
            ask = server.requests()
            took = [patch(ask, paths[number % len(paths)], number) for number in range(500)]
            leg["requests_ms"] = quantiles(took)
            leg["idle"] = cost(server, lambda: time.sleep(20))[1]
            leg["bench"] = only_finals(bench(args, server, args.bench_seconds))
            leg["idle_later"] = cost(server, lambda: time.sleep(20))[1]
            leg["waiting_after"], leg["log_lines"] = waiting(server), server.said().count("\n")
            server.stop()
            result["legs"].append(leg)
    result["good"] = result["legs"][0]["waiting"] >= args.waiting
    return result


def only_finals(said):
    return {name: said[name] for name in ("finals", "ledger_ms", "delivery_ms", "final_ms", "missing") if name in said}


def newest_call(server, known):
    """The path of a call that was not there before."""
    ask = server.requests()
    while True:
        found = {one["call"]["id"]: one["call"]["type"] for one in ask("POST", "/api/v2/video/calls", {"limit": 100})["calls"]}
        for call_id in set(found) - known:
            known.add(call_id)
            return f"/video/call/{found[call_id]}/{call_id}"
        time.sleep(0.1)


def down(args):
    """A: a hook that is down for a time, and takes a second for each event then; B: no hook."""
    result, known = {"down_s": args.down, "legs": []}, set()
    with serving(args, "down", PRIVATE) as server:
        for name in "ABAB":
            note(f"down: {name}")
            leg = hook_down(args, server, known) if name == "A" else {"bench": only_finals(bench(args, server, args.seconds))}
            result["legs"].append({"which": name, **leg})
    result["good"] = not any(leg.get("wrong") for leg in result["legs"])
    return result


def hook_down(args, server, known):
    port, said = free_port(), {}
    set_hooks(server, [f"http://127.0.0.1:{port}/"], rfc3339=True)
    known |= {one["call"]["id"] for one in server.requests()("POST", "/api/v2/video/calls", {"limit": 100})["calls"]}
    running = threading.Thread(target=lambda: said.update(only_finals(bench(args, server, 2 * args.seconds))))
    running.start()
    began = time.monotonic()
    watcher = Watcher(server, newest_call(server, known))
    time.sleep(began + args.down - time.monotonic())
    was_waiting = waiting(server)
    with Receiver(server.secret, delay_s=1.0, port=port) as receiver:
        note(f"down: it is up; {was_waiting} wait")
        first = receiver.wait(lambda posts: posts and posts[0].at, 90)
        running.join()
        at_the_end = waiting(server)
        took = drained(server, 600)
        watcher.stop()
        wrong = [] if took is not None else ["it is not told everything within 600 s"]
        wrong += disorder(watcher, receiver)
        told = Counter(post.type for post in receiver.once())
        again = receiver.duplicates()
    set_hooks(server, [])
    return {"bench": said, "waiting_when_up": was_waiting, "first_told_after_s": first and round(first - began - args.down, 1),
            "waiting_at_the_end": at_the_end, "drained_s": took, "told": dict(told), "again": again, "seen": len(watcher.events), "wrong": wrong}


def disorder(watcher, receiver):
    """What a watcher saw and the hook was not told, or not in this order; and what is wrong with webhooks themselves."""
    places = {whole(post.event): place for place, post in enumerate(receiver.once())}
    seen = [whole(event) for event in watcher.events]
    wrong = [f"not told: {text}" for text in seen if text not in places] + receiver.problems() + watcher.problems
    order = [places[text] for text in seen if text in places]
    wrong += ["told in another order"] * (order != sorted(order))
    of_call = defaultdict(list)
    for post in receiver.once():
        of_call[post.call].append(nanos(post.event["created_at"]))
    wrong += [f"times of {call} go back" for call, times in of_call.items() if times != sorted(times)]
    return wrong[:10]


def sync(args):
    rounds = defaultdict(list)
    for number in range(3):
        for how in ("each", "second", "never"):
            with serving(args, f"sync-{how}-{number}", f'sync = "{how}"\n') as server:
                rounds[how].append(changes_of(server))
                note(f"sync: {how} {rounds[how][-1]}")
    medians = {how: {name: round(median(one[name] for one in of), 2) for name in of[0]} for how, of in rounds.items()}
    return {"medians": medians, "rounds": rounds, "good": True}


def changes_of(server):
    """One connection, one change behind the other; then eight of them."""
    paths, ask = calls_of(server, THREADS), server.requests()
    began = time.monotonic()
    alone = quantiles([patch(ask, paths[0], number) for number in range(1000)])
    alone_s = time.monotonic() - began

    def of_one(i):
        own = server.requests()
        return [patch(own, paths[i], number) for number in range(500)]

    began = time.monotonic()
    together = quantiles(threads(THREADS, of_one))
    together_s = time.monotonic() - began
    return {"one_p50_ms": alone["p50"], "one_p99_ms": alone["p99"], "one_a_second": round(1000 / alone_s, 1),
            "eight_p50_ms": together["p50"], "eight_p99_ms": together["p99"], "eight_a_second": round(THREADS * 500 / together_s, 1)}


SCENARIOS = {"events": events, "waiting": waits, "down": down, "sync": sync}


def main():
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    path = lambda text: Path(text).resolve()
    parser.add_argument("--bin", required=True, type=path, help="the program cuewire")
    parser.add_argument("--work", required=True, type=path, help="a folder")
    parser.add_argument("--data", type=path, help="a folder for data and logs, which is emptied; default: WORK/load")
    parser.add_argument("--model", help="as of `cuewire serve`; default: the built-in one")
    parser.add_argument("--speech", type=path, help="other recordings: a folder with en/*.flac")
    parser.add_argument("--rate", type=int, default=200, help="events: changes a second")
    parser.add_argument("--seconds", type=int, default=60, help="events: how long; down: how long without a hook; with one, twice that")
    parser.add_argument("--waiting", type=int, default=100_000, help="waiting: events")
    parser.add_argument("--calls", type=int, default=200, help="waiting: calls that they are of")
    parser.add_argument("--settle", type=float, default=5, help="waiting: seconds behind each start")
    parser.add_argument("--bench-seconds", type=int, default=30, help="waiting: how long captions are measured")
    parser.add_argument("--down", type=int, default=60, help="down: seconds without the endpoint")
    parser.add_argument("scenario", nargs="+", choices=list(SCENARIOS))
    args = parser.parse_args()
    args.data = args.data or args.work / "load"
    shutil.rmtree(args.data, ignore_errors=True)
    args.data.mkdir(parents=True)
    good = True
    for name in args.scenario:
        result = SCENARIOS[name](args)
        print(json.dumps({"scenario": name, **result}), flush=True)
        if not result["good"]:
            good = False
            print(f"FAIL load: {name}: expected all events, in order; see above", file=sys.stderr)
    sys.exit(0 if good else 1)


if __name__ == "__main__":
    main()
