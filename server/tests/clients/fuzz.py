#!/usr/bin/env python3
"""schemathesis over `/openapi.json`, with a server's token and with a user's: no 5xx, and nothing that the document does not say.

    fuzz.py --bin PROGRAM --work FOLDER [--examples 2000] [--seed 1] [--token server,user] [--phases …]

In: the program; FOLDER with what `run --prepare` installed; how many made up requests an operation. Out: what schemathesis says, a table of what
each operation answered, and exit code 1 where a status, a content type or a body is not documented, an answer is a 5xx or takes five seconds,
the server has panicked or is gone, or, of at least a hundred examples in both phases, an operation granted none: any with a server's token, with a user's
what users may.

It all runs in a network namespace that has a loopback interface and nothing else: storages and queues at addresses that were made up are nowhere.
Left out: WebSockets behind their handshake, methods that a path does not have, and sequences of requests, which the official clients make.
"""

import argparse
import fcntl
import json
import os
import shutil
import socket
import struct
import subprocess
import sys
import threading
import time
from collections import Counter, defaultdict
from pathlib import Path
from urllib.parse import parse_qs, urlsplit

from service import Gone, Refused, Server, say, watch

HERE = Path(__file__).resolve().parent
CHECKS = "not_a_server_error,status_code_conformance,content_type_conformance,response_schema_conformance"
LONGEST_S = 5
TYPES, IDS, USERS, STORAGES = ["default", "development", "fuzzed"], [f"c{n}" for n in range(4)], ["alice", "bob"], ["s0", "s1"]
SAID = "/api/v2/video/call/development/said"
# Nothing is upgraded here, no storage is in reach, and a program may be without queues.
NEVER = {"connect", "audio", "check_external_storage", "check_sqs"}
# What a user may: alice is the host of the calls that there are.
USERS_MAY = {"call_client_event", "download_transcript", "get_call", "get_or_create_call", "list_closed_captions", "list_transcriptions",
             "mark_ended", "probe_transcript", "query_calls", "query_members", "update_call", "update_members", "update_user_permissions"}
# With so many examples, behind the phase `coverage`, an operation is granted at least once.
ENOUGH = 100
CONFIG = "color = false\n[phases.coverage]\nunexpected-methods = []\n"


def isolated(argv):
    """Begins anew in a network namespace of its own."""
    if "--isolated" in argv:
        # SIOCSIFFLAGS: IFF_UP | IFF_LOOPBACK | IFF_RUNNING.
        with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as any_socket:
            fcntl.ioctl(any_socket, 0x8914, struct.pack("16sH22x", b"lo", 0x49))
        return
    unshare = ["unshare", "--map-root-user", "--net"]
    if not shutil.which("unshare") or subprocess.run([*unshare, "true"], capture_output=True).returncode != 0:
        say("!!!! SKIPPED: fuzz.py needs a network namespace of its own, and `unshare --map-root-user --net` is refused here")
        sys.exit(0)
    sys.stdout.flush()
    os.execvp("unshare", [*unshare, sys.executable, *argv, "--isolated"])


def make_world(server):
    """What there is to be asked for."""
    ask = server.requests()
    users = {name: {"name": name, "custom": {"of": "fuzz"}} for name in USERS}
    ask("POST", "/api/v2/users", {"users": users})
    ask("POST", "/api/v2/video/calltypes", {"name": "fuzzed", "grants": {"user": ["create-call", "read-call", "update-call", "start-transcription-call"]}})
    for name in STORAGES:
        ask("POST", "/api/v2/external_storage", {"name": name, "storage_type": "s3", "bucket": "b", "aws_s3": {
            "s3_region": "r", "s3_api_key": "k", "s3_secret": "s", "s3_custom_endpoint_url": "http://127.0.0.1:9"}})
    transcripts = []
    for call_type in TYPES:
        for call_id in [*IDS, "kept"]:
            path = f"/api/v2/video/call/{call_type}/{call_id}"
            ask("POST", path, {"data": {"created_by_id": "alice", "members": [{"user_id": "bob"}]}})
        ask("POST", f"{path}/start_transcription", {})
        ask("POST", f"{path}/stop_transcription", {})
        transcripts += listed(ask, path)
    # A call that nobody ends, with captions, to which some are sent, and ports, of which each is closed once.
    ask("POST", SAID, {"data": {"created_by_id": "alice"}})
    ask("POST", f"{SAID}/start_closed_captions", {})
    speaker = {"user_id": "alice", "payload_type": 0, "codec": "pcmu"}
    ports = [str(ask("POST", f"{SAID}/rtp", speaker)["port"]) for _ in range(20)]
    return {"key": server.key, "said": SAID.split("/")[-2:], "ports": ports, "types": TYPES, "ids": IDS, "users": USERS, "storages": STORAGES, "transcripts": transcripts}


def listed(ask, path):
    """The transcripts of a call, once there is one."""
    end = time.monotonic() + 20
    while not (found := ask("GET", f"{path}/transcriptions")["transcriptions"]):
        if time.monotonic() > end:
            raise RuntimeError(f"expected a transcript of {path} within 20 s")
        time.sleep(0.1)
    for one in found:
        url = urlsplit(one["url"])
        query = {name: values[0] for name, values in parse_qs(url.query).items()}
        yield {"type": path.split("/")[-2], "id": path.split("/")[-1], "session": one["session_id"], "filename": one["filename"], "egress_id": url.path.split("/")[2], **query}


def fuzz(args, kind):
    """Whether all is well with this kind of token."""
    folder = args.work / "fuzz-run" / kind
    shutil.rmtree(folder, ignore_errors=True)
    folder.mkdir(parents=True)
    log = folder / "requests.jsonl"
    # Nothing but this machine is there to be reached; and no limit is what is tried.
    limits = "user_requests_per_min = 1000000\nserver_requests_per_min = 1000000\nconnects_per_min = 100000\n"
    # More ports than are asked for: that there is none is an answer of 503.
    config = f'request_log = "{log}"\nhooks_to_private_addresses = true\nrtp_ports = [20000, 29999]\n[limits]\n{limits}'
    server = Server(args.bin, folder, config)
    server.start()
    try:
        world = make_world(server)
        connection, world["connection"] = watch(server, "alice")
        threading.Thread(target=drain, args=(connection,), daemon=True).start()
        world["token"] = server.token() if kind == "server" else server.user_token("alice")
        (folder / "schemathesis.toml").write_text(CONFIG)
        began, own = time.monotonic(), log.stat().st_size
        command = [args.work / "fuzz" / "bin" / "schemathesis", "--config-file", folder / "schemathesis.toml", "run", f"{server.base}/openapi.json",
                   "--phases", args.phases, "--checks", CHECKS, "--max-response-time", LONGEST_S, "--max-examples", args.examples,
                   "--seed", args.seed, "--request-timeout", 15, "--generation-with-security-parameters", "false", "--generation-database", "none",
                   "--continue-on-failure", "--warnings", "off", "--suppress-health-check", "all"]
        env = {**os.environ, "CUEWIRE_FUZZ": json.dumps(world), "SCHEMATHESIS_HOOKS": "fuzz_hooks", "PYTHONPATH": str(HERE), "PYTHONDONTWRITEBYTECODE": "1"}
        code = subprocess.run([str(part) for part in command], env=env, cwd=folder, stdin=subprocess.DEVNULL).returncode
        took = time.monotonic() - began
        problems = [] if code == 0 else [f"schemathesis: exit code {code}"]
        if server.process.poll() is not None:
            problems.append(f"the server is gone: {server.process.returncode}")
        connection.close()
    finally:
        if server.stop() != 0:
            say("FAIL fuzz: expected that the server ends with 0")
    if "panicked" in server.said():
        problems.append(f"the server has panicked: {server.said()[-3000:]}")
    if server.secret in server.said() + log.read_text():
        problems.append("a log holds the API secret")
    problems += table(log.read_bytes()[own:].decode(), kind, args.examples >= ENOUGH and "coverage" in args.phases)
    for problem in problems:
        say(f"FAIL fuzz with a {kind}'s token: {problem}")
    say(f"{'FAIL' if problems else 'pass'} fuzz with a {kind}'s token: {took:.0f} s")
    return not problems


def drain(connection):
    try:
        while True:
            connection.next(600)
    except (Gone, OSError):
        pass


def table(lines, kind, are_enough):
    rows = defaultdict(Counter)
    for line in lines.splitlines():
        one = json.loads(line)
        rows[one["operation"]][one["status"]] += 1
    say(f"\n{'operation':26} answers to requests with a {kind}'s token")
    for operation, statuses in sorted(rows.items()):
        say(f"{operation:26} {', '.join(f'{count} × {status}' for status, count in sorted(statuses.items()))}")
    say(f"{sum(count for statuses in rows.values() for count in statuses.values())} requests\n")
    expected = USERS_MAY if kind == "user" else {*rows} - NEVER - {"unknown"}
    never = [operation for operation in sorted(expected) if min(rows[operation], default=500) >= 400]
    if not are_enough:
        say(f"never granted, with too few examples to say more: {', '.join(never)}")
    # To a user the rest is refused as it should be; access.rs says what.
    return [f"{one} was never granted" for one in never if are_enough]


def main():
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--bin", required=True, type=lambda path: Path(path).resolve())
    parser.add_argument("--work", required=True, type=lambda path: Path(path).resolve())
    parser.add_argument("--examples", type=int, default=2000)
    parser.add_argument("--seed", type=int, default=1)
    parser.add_argument("--token", default="server,user")
    parser.add_argument("--phases", default="coverage,fuzzing", help="schemathesis': `coverage` goes through each field's limits, `fuzzing` makes up examples")
    parser.add_argument("--isolated", action="store_true", help=argparse.SUPPRESS)
    args = parser.parse_args()
    isolated(sys.argv)
    sys.exit(0 if all([fuzz(args, kind) for kind in args.token.split(",")]) else 1)


if __name__ == "__main__":
    main()
