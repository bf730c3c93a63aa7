"""Checks, and a runner of scenarios, for the scripts in Python.

In: scenarios, functions that take a `Checks`. Out: a line a check, and how many failed.
"""

import base64
import hashlib
import hmac
import json
import os
import subprocess
import sys
import threading
import time
import traceback
from datetime import datetime
from pathlib import Path

BASE = os.environ["CUEWIRE_URL"]
API_KEY = os.environ["CUEWIRE_API_KEY"]
SECRET = os.environ["CUEWIRE_API_SECRET"]
WORK = Path(os.environ["CLIENTS_WORK"])
STAMP = format(time.time_ns() // 1_000_000, "x")
_lock = threading.Lock()


class Unexpected(Exception):
    """A check failed."""


def say(line):
    with _lock:
        print(line, flush=True)


def shown(value):
    text = repr(value)
    return text if len(text) <= 1500 else text[:1500] + "…"


class Checks:
    """The checks of one scenario."""

    def __init__(self, scenario):
        self.scenario = scenario
        self.count = 0

    def ok(self, what):
        self.count += 1
        say(f"ok   {self.scenario}: {what}")

    def equal(self, what, expected, got):
        if expected != got:
            raise Unexpected(f"{what}: expected {shown(expected)}, got {shown(got)}")
        self.ok(what)

    def that(self, what, condition, got):
        if not condition:
            raise Unexpected(f"{what}: got {shown(got)}")
        self.ok(what)


def until(what, condition, seconds=15):
    end = time.monotonic() + seconds
    while not (got := condition()):
        if time.monotonic() > end:
            raise Unexpected(f"expected within {seconds} s: {what}; it did not come")
        time.sleep(0.05)
    return got


def run(client, scenarios):
    """Runs scenarios, one after the other; exits with 1 where one failed."""
    only = sys.argv[1:]
    names = [one for one in scenarios if not only or any(part in one.__name__ for part in only)]
    failed = 0
    for scenario in names:
        name = scenario.__name__.replace("_", " ")
        checks, began = Checks(f"{client}: {name}"), time.monotonic()
        try:
            scenario(checks)
            say(f"done {client}: {name}: {checks.count} checks, {time.monotonic() - began:.1f} s")
        except Unexpected as error:
            failed += 1
            say(f"FAIL {client}: {name}: {error}")
        except Exception:
            failed += 1
            say(f"FAIL {client}: {name}: {traceback.format_exc()}")
    say(f"{'FAIL' if failed else 'pass'} {client}: {len(names) - failed} of {len(names)} scenarios")
    sys.exit(1 if failed else 0)


def token(claims, secret=SECRET):
    def part(value):
        return base64.urlsafe_b64encode(json.dumps(value).encode()).rstrip(b"=")

    signed = part({"alg": "HS256", "typ": "JWT"}) + b"." + part(claims)
    signature = hmac.new(secret.encode(), signed, hashlib.sha256).digest()
    return (signed + b"." + base64.urlsafe_b64encode(signature).rstrip(b"=")).decode()


def user_token(user_id, **claims):
    return token({"user_id": user_id, "iat": int(time.time()) - 2, **claims})


class Recorder:
    """Writes down what came, for the check against the clients' models."""

    def __init__(self, client):
        (WORK / "records").mkdir(exist_ok=True)
        self.client = client
        self.file = (WORK / "records" / f"{client}.jsonl").open("a")

    def __call__(self, **record):
        self.file.write(json.dumps({"client": self.client, **record}) + "\n")
        self.file.flush()


def offline(name, how):
    """What the engine makes of a recording, a fragment each."""
    return [json.loads(line) for line in (WORK / "speech" / f"{name}.{how}.jsonl").read_text().splitlines()]


def nanos(at):
    seconds, fraction = at.removesuffix("Z").split(".")
    whole = datetime.fromisoformat(seconds + "+00:00")
    return int(whole.timestamp()) * 1_000_000_000 + int(fraction.ljust(9, "0"))


def rfc3339(at):
    seconds, fraction = divmod(at, 1_000_000_000)
    return time.strftime("%Y-%m-%dT%H:%M:%S", time.gmtime(seconds)) + f".{fraction:09}Z"


def moved(fragments, speaker_id, first):
    """The bytes that a transcript has if `fragments` was said by `speaker_id`, the first of it at `first`."""
    by = nanos(first) - nanos(fragments[0]["start_time"])
    lines = []
    for one in fragments:
        times = {name: rfc3339(nanos(one[name]) + by) for name in ("start_time", "stop_time")}
        line = {"type": one["type"], **times, "speaker_id": speaker_id, "text": one["text"]}
        lines.append(json.dumps(line, ensure_ascii=False, separators=(",", ":")) + "\n")
    return "".join(lines)


def speak(call_type, call_id, user_id, *recordings, speed=None, meanwhile=None):
    """Speaks in a call, and leaves. `meanwhile` is called when that has begun."""
    node = WORK / "node"
    said = ["" if speed is None else str(speed), *recordings]
    command = ["node", str(node / "audio.mjs"), call_type, call_id, user_id, user_token(user_id), *said]
    with subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True) as talk:
        try:
            if meanwhile:
                meanwhile()
            out, _ = talk.communicate(timeout=60)
        finally:
            talk.kill()
    if talk.returncode != 0:
        raise Unexpected(f"expected that {user_id} is heard in {call_type}:{call_id}; got {out.strip()[-1500:]}")
