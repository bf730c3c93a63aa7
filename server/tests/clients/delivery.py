#!/usr/bin/env python3
"""Where events and transcripts go, with real servers at the other end: storages, queues, hooks, a full disk.

    delivery.py --bin PROGRAM --work FOLDER [--model MODEL] [NAME…]

In: the program; FOLDER with what `run --prepare` installed, whose `venv` this runs with; names of scenarios, all where none is given.
Out: a line a check; exits with 1 where anything is wrong. What cannot be had is SKIPPED, loudly.
"""

import argparse
import base64
import gzip
import json
import os
import shutil
import ssl
import subprocess
import sys
import time
import urllib.error
import urllib.request
from pathlib import Path

from emulators import S3, Azurite, Gcs, Missing
from faults import Faults
from getstream import Stream
from getstream.exceptions import StreamApiException
from getstream.models import CallRequest, EventHook, S3Request
from getstream.webhook import parse_sqs, verify_and_parse_webhook
from receiver import Receiver
from service import Refused, Server, Speaker, nanos, say
from speech import TESTDATA, pcm_of

BUCKET = "transcripts"
SPEECH = TESTDATA / "en-number-not-answering.flac"
# What a bad network does to a request, and how often: every second one has its trouble.
TROUBLE = {"drop_before": 0.1, "drop_after": 0.1, "error_500": 0.1, "error_503": 0.1, "truncate": 0.1}
CONFIG = "hooks_to_private_addresses = true\n"


class Wrong(Exception):
    """A check failed."""


def that(what, is_so, got=""):
    if not is_so:
        raise Wrong(f"expected {what}, got {str(got)[:600]}")
    say(f"ok   {what}")


def eventually(what, seconds, look):
    end = time.monotonic() + seconds
    while not (found := look()):
        if time.monotonic() > end:
            raise Wrong(f"expected within {seconds} s: {what}")
        time.sleep(0.1)
    return found


class World:
    """A server of its own, its official client, and a hook that hears everything."""

    def __init__(self, args, name, config="", env=None, plan=None, program=None):
        folder = args.work / "delivery" / name
        shutil.rmtree(folder, ignore_errors=True)
        self.server = Server(program or args.bin, folder, CONFIG + config, args.model)
        self.set, self.before = env or {}, {}
        self.plan = plan

    def __enter__(self):
        # Of the server's environment.
        for name, value in self.set.items():
            self.before[name] = os.environ.get(name)
            os.environ[name] = value
        self.server.start()
        self.client = Stream(self.server.key, self.server.secret, base_url=self.server.base, timeout=10)
        self.hook = Receiver(self.server.secret).__enter__()
        self.net = Faults(self.hook.port, self.plan, seed=11, delay=(0.005, 0.2), hang_s=1).__enter__() if self.plan else None
        url = f"{self.net.url}/hook" if self.net else self.hook.url
        self.hooks(EventHook(id="all", hook_type="webhook", webhook_url=url, timeout_ms=2000, enabled=True))
        return self

    def hooks(self, *hooks, **app):
        self.client.update_app(event_hooks=list(hooks), **app)

    def __exit__(self, *error):
        code = self.server.stop()
        for part in filter(None, [self.net, self.hook]):
            part.__exit__(*error)
        for name, value in self.before.items():
            os.environ.pop(name) if value is None else os.environ.update({name: value})
        said = self.server.said()
        if error[0]:
            say(f"---- the end of the server's log\n{said[-1500:]}")
        else:
            that("the server ends with 0, without a panic, and without its secrets in its log",
                 code == 0 and "panicked" not in said and self.server.secret not in said, (code, said[-600:]))

    def call(self, name):
        call = self.client.video.call("default", name)
        call.get_or_create(data=CallRequest(created_by_id="host"))
        return call

    def talk(self, call, storage=None, speech=SPEECH):
        """A transcription in which one recording was said, or nothing. Out: where its file is, by the event."""
        call.start_transcription(**({"transcription_external_storage": storage} if storage else {}))
        if speech:
            speaker = Speaker(self.server, f"default/{call.id}", "alice", pcm_of(speech) + bytes(16_000 * 3), 4)
            speaker.wanted.set()
            eventually("somebody speaks", 10, lambda: speaker.joins)
            time.sleep((len(speaker.pcm) / 32_000) / 4 + 0.3)
            speaker.leave()
            that("nothing is wrong with audio", not speaker.problems, speaker.problems)
        call.end()
        ready = self.came(call, "call.transcription_ready")
        return ready["call_transcription"]

    def came(self, call, event_type, seconds=30):
        cid = f"default:{call.id}"
        found = eventually(f"{event_type} of {cid} reaches the hook", seconds,
                           lambda: [post for post in self.hook.all() if post.call == cid and post.type == event_type])
        return found[0].event


def offline(args):
    """What the program makes of the recording by itself."""
    out = subprocess.run([args.bin, "transcribe", "--format", "jsonl", *(["--model", args.model] if args.model else []), SPEECH],
                         check=True, capture_output=True, text=True).stdout
    return [json.loads(line)["text"] for line in out.splitlines()]


def texts(file):
    return [json.loads(line)["text"] for line in file.decode().splitlines()]


def refused(what, ask, *parts):
    try:
        answer = ask()
    except StreamApiException as error:
        text = str(error.raw_response_body)
        that(f"{what}: refused, and says why", 400 <= error.status_code < 500 and all(part in text for part in parts), text)
        return text
    raise Wrong(f"expected that this is refused: {what}; got {answer.data}")


def kinds(work):
    """Each kind of storage: its name, a context manager, how a client says that it is reached, the server's environment."""
    def s3(one):
        return {"storage_type": "s3", "aws_s3": S3Request(one.region, one.key, one.url, one.secret)}

    def gcs(one):
        return {"storage_type": "gcs", "gcs_credentials": one.credentials}

    return [("S3", lambda: S3(work), s3), ("Google", lambda: Gcs(work), gcs),
            ("Azure, by its key", lambda: Azurite(work), None), ("Azure, by an application", lambda: Azurite(work, oauth=True), None)]


def toml(one, name):
    """The same as a part of a configuration file; of Azure, of which the clients' fields lead to its public cloud only."""
    if name == "S3":
        how = (f'storage_type = "s3"\naws_s3 = {{ s3_region = "{one.region}", s3_api_key = "{one.key}", s3_secret = "{one.secret}", '
               f's3_custom_endpoint_url = "{one.url}" }}\n')
    elif name == "Google":
        how = f"storage_type = \"gcs\"\ngcs_credentials = '''{one.credentials}'''\n"
    else:
        azure = {"abs_account_name": one.account, "abs_custom_endpoint_url": one.endpoint}
        if name.endswith("application"):
            azure |= {"abs_client_id": one.client_id, "abs_client_secret": one.client_secret, "abs_tenant_id": one.tenant,
                      "abs_authority_host": one.authority}
        else:
            azure["abs_account_key"] = one.account_key
        fields = ", ".join(f'{field} = "{value}"' for field, value in azure.items())
        how = f'storage_type = "abs"\nazure_blob = {{ {fields} }}\n'
    return f'[storages.ours]\nbucket = "{BUCKET}"\npath = "a/b"\n{how}'


def each_storage(args, scenario):
    for name, start, of_client in kinds(args.work):
        try:
            with start() as one:
                one.make(BUCKET)
                env = {"SSL_CERT_FILE": str(one.certificate)} if getattr(one, "certificate", None) else {}
                scenario(name, one, of_client, env)
        except Missing as why:
            say(f"!!!! SKIPPED: {name}: {why}")


def is_untouched(one):
    """Nothing was deleted, and nothing written over what was there."""
    return not [seen for seen in one.seen if seen[0] == "DELETE" or (seen[0] == "POST" and "delete" in seen[1])]


def storages(args):
    """External ones: a check, transcripts once and as they are, nothing else."""
    expected = offline(args)

    def scenario(name, one, of_client, env):
        config = "" if of_client else toml(one, name)
        with World(args, f"storages-{name.split()[0]}-{bool(env)}", config, env) as world:
            if of_client:
                world.client.create_external_storage(name="ours", bucket=BUCKET, path="a/b", **of_client(one))
            checked = world.client.check_external_storage("ours").data.file_url
            that(f"{name}: a check writes a file where it says", any(checked.endswith(file) for file in one.list(BUCKET)), (checked, one.list(BUCKET)))
            call = world.call("spoken")
            file = world.talk(call, "ours")
            path = f"a/b/{file['filename']}"
            that(f"{name}: the transcript is there, as it is offline", set(texts(one.list(BUCKET)[path])) == set(expected), one.list(BUCKET).get(path))
            that(f"{name}: its URL is the bucket's, unsigned", file["url"].endswith(path) and "?" not in file["url"], file["url"])
            listed = call.list_transcriptions().data.transcriptions
            that(f"{name}: so it is listed", [found.url for found in listed] == [file["url"]], listed)
            refused(f"{name}: deleting it", lambda: call.delete_transcription(file["session_id"], file["filename"]), "ours")
            empty = world.talk(world.call("silent"), "ours", None)
            that(f"{name}: where nobody spoke it is empty", one.list(BUCKET)[f"a/b/{empty['filename']}"] == b"")
            that(f"{name}: nothing was deleted", is_untouched(one), one.seen)
            if name == "S3":
                wrong = S3Request(one.region, one.key, one.url, "another secret")
                world.client.create_external_storage(name="wrong", bucket=BUCKET, storage_type="s3", aws_s3=wrong)
                why = refused("S3: a check with a wrong secret", lambda: world.client.check_external_storage("wrong"), "denied")
                that("S3: the secret is not in the answer", "another secret" not in why and one.secret not in why, why)
                leaked = json.dumps([world.client.list_external_storage().data.to_dict(), world.client.get_app().data.app.to_dict()], default=str)
                that("S3: nor in any list", one.secret not in leaked)

    each_storage(args, scenario)


def default_bucket(args):
    """A bucket of one's own as the default storage: it signs, and deletes."""
    def scenario(name, one, _, env):
        config = 'default_storage = "ours"\n' + toml(one, name)
        with World(args, f"default-{name.split()[0]}-{bool(env)}", config, env) as world:
            call = world.call("spoken")
            file = world.talk(call)
            path = f"a/b/{file['filename']}"
            stored = one.list(BUCKET)[path]
            url = call.list_transcriptions().data.transcriptions[0].url
            with fetch(url, getattr(one, "certificate", None)) as answer:
                that(f"{name}: its signed URL gives it to who has no credentials", answer.read() == stored)
            try:
                fetch(url.split("?")[0], getattr(one, "certificate", None)).close()
                raise Wrong(f"{name}: expected that the URL does not do unsigned")
            except urllib.error.HTTPError as error:
                that(f"{name}: and not to who has not the whole URL", error.code in (401, 403, 404), error.code)
            call.delete_transcription(file["session_id"], file["filename"])
            that(f"{name}: it can be deleted", path not in one.list(BUCKET) and not call.list_transcriptions().data.transcriptions)
        with World(args, f"retention-{name.split()[0]}-{bool(env)}", "transcript_retention_days = 0\n" + config, env) as world:
            call = world.call("short-lived")
            world.talk(call, speech=None)
            eventually(f"{name}: what is kept for no time is deleted by itself", 20,
                       lambda: not one.list(BUCKET) and not call.list_transcriptions().data.transcriptions)
            say(f"ok   {name}: what is kept for no time is deleted by itself")

    each_storage(args, scenario)


def fetch(url, certificate):
    context = ssl.create_default_context(cafile=certificate) if certificate else None
    return urllib.request.urlopen(url, timeout=10, context=context)


def uploads(args):
    """Fifty transcripts into a storage that fails half of all requests."""
    with S3(args.work) as s3, Faults(s3.url, TROUBLE, seed=5, delay=(0.005, 0.2), hang_s=2) as net, World(args, "uploads") as world:
        s3.make(BUCKET)
        how = S3Request(s3.region, s3.key, net.url, s3.secret)
        world.client.create_external_storage(name="ours", bucket=BUCKET, storage_type="s3", aws_s3=how)
        calls = [world.call(f"call-{i}") for i in range(50)]
        for i, call in enumerate(calls):
            call.start_closed_captions(enable_transcription=True, external_storage="ours")
            for n in range(i % 4):
                call.send_closed_caption(speaker_id="bob", text=f"{call.id} says {n}", user_id="host")
            call.end()
        ready = [world.came(call, "call.transcription_ready", 90)["call_transcription"] for call in calls]
        files = s3.list(BUCKET)
        expected = {file["filename"]: [f"call-{i} says {n}" for n in range(i % 4)] for i, file in enumerate(ready)}
        that("each file is there once, and complete", {name: texts(file) for name, file in files.items()} == expected, files.keys())
        types = [post.type for post in world.hook.once()]
        that("each is said once, and none has failed", types.count("call.transcription_ready") == 50 and "call.transcription_failed" not in types, types)
        that("the storage had its trouble", sum(net.counts[kind] for kind in TROUBLE) >= 20, net.counts)
        say(f"     {dict(net.counts)}")
        that("nothing was deleted", is_untouched(s3))


def hooks(args):
    """Three hooks, one of them behind a bad network: everything arrives everywhere, in order in each call."""
    plan = {kind: 0.04 for kind in TROUBLE} | {"delay": 0.1, "hang": 0.005}
    with World(args, "hooks", plan=plan) as world, Receiver(world.server.secret) as plain, Receiver(world.server.secret) as only:
        all_of = EventHook(id="all", hook_type="webhook", webhook_url=f"{world.net.url}/hook", timeout_ms=1500, enabled=True)
        world.hooks(all_of, EventHook(id="plain", hook_type="webhook", webhook_url=plain.url, enabled=True),
                    EventHook(id="only", hook_type="webhook", webhook_url=only.url, enabled=True, event_types=["call.deleted"]),
                    enable_hook_payload_compression=True)
        names = [f"call-{i}" for i in range(8)]
        for name in names:
            world.call(name)
        for n in range(30):
            for name in names:
                world.client.video.call("default", name).update(custom={"n": n})
        for name in names:
            world.client.video.call("default", name).delete()
        expected = {f"default:{name}": ["call.created", *["call.updated"] * 30, "call.deleted"] for name in names}
        count = sum(map(len, expected.values()))
        for what, receiver in [("a hook that answers", plain), ("a hook behind a bad network", world.hook)]:
            eventually(f"{what} has everything", 120, lambda receiver=receiver: len({post.id for post in receiver.all()}) >= count)
            receiver.assert_in_order(expected)
            numbers = {}
            for post in receiver.once():
                if post.type == "call.updated":
                    numbers.setdefault(post.call, []).append(post.event["call"]["custom"]["n"])
            that(f"{what} has it in order in each call", all(of == list(range(30)) for of in numbers.values()) and len(numbers) == 8, numbers)
            that(f"{what}: signatures, ids, compression", not receiver.problems() and all(post.is_gzip for post in receiver.all()), receiver.problems()[:3])
        that("a filter lets through what it names", [post.type for post in only.once()] == ["call.deleted"] * 8, only.all())
        say(f"     {dict(world.net.counts)}; {len(world.hook.all()) - count} deliveries more than events")
        post = plain.all()[0]
        parsed = verify_and_parse_webhook(post.raw, post.headers["X-Signature"], world.server.secret)
        that("getstream takes it", parsed.type == post.type, parsed)
        node_takes(args, world.server, post)


def node_takes(args, server, post):
    script = ("import {StreamClient} from '@stream-io/node-sdk'; const [key, secret, signature] = process.argv.slice(2);"
              "let body = ''; for await (const part of process.stdin) body += part;"
              "const client = new StreamClient(key, secret);"
              "process.exit(client.verifyWebhook(body, signature) && !client.verifyWebhook(body + ' ', signature) ? 0 : 1);")
    file = args.work / "node" / "verify.mjs"
    file.write_text(script)
    done = subprocess.run(["node", file, server.key, server.secret, post.headers["X-Signature"]], input=post.body)
    that("@stream-io/node-sdk takes it too, and nothing else", done.returncode == 0)


def queues(args):
    """The same into Amazon's queues: base64 of the JSON, or of its gzip; in order a call where they are FIFO."""
    with S3(args.work) as aws, World(args, "queues") as world:
        # The region, which Amazon's URLs name, is a field of our own.
        ask = world.server.requests()
        checked = lambda url, secret=aws.secret: ask("POST", "/api/v2/check_sqs", {
            "sqs_url": url, "sqs_region": aws.region, "sqs_key": aws.key, "sqs_secret": secret})
        plain, fifo = aws.queue("events"), aws.queue("events.fifo")
        try:
            that("a queue is checked", checked(plain)["status"] == "ok", checked(plain))
        except Refused as error:
            if "without SQS" in str(error):
                return say("!!!! SKIPPED: queues: the program was built without the feature `sqs`")
            raise
        wrong = checked(plain, "another secret")
        that("with a wrong secret it is not taken", wrong["status"] == "error" and "another secret" not in wrong["error"], wrong)
        aws.messages(plain)
        of = lambda name, url: EventHook(id=name, hook_type="sqs", sqs_queue_url=url, sqs_region=aws.region, sqs_key=aws.key,
                                         sqs_secret=aws.secret, enabled=True)
        for compressed in (False, True):
            world.hooks(of("plain", plain), of("fifo", fifo), enable_hook_payload_compression=compressed)
            name = f"queued-{int(compressed)}"
            world.call(name)
            for n in range(20):
                world.client.video.call("default", name).update(custom={"n": n})
            for what, url in [("a queue", plain), ("a FIFO queue", fifo)]:
                got = []
                eventually(f"{what} has all", 30, lambda url=url, got=got: got.extend(aws.messages(url)) or len(got) >= 21)
                bodies = [base64.b64decode(body) for body in got]
                that(f"{what}: base64 of {'gzip' if compressed else 'JSON'}", all(body[:2] == b"\x1f\x8b" for body in bodies) == compressed)
                events = [json.loads(gzip.decompress(body) if compressed else body) for body in bodies]
                numbers = [event["call"]["custom"]["n"] for event in events if event["type"] == "call.updated"]
                that(f"{what}: everything once{', in order' if url == fifo else ''}", (numbers if url == fifo else sorted(numbers)) == list(range(20)), numbers)
                that(f"{what}: getstream takes it", parse_sqs(got[0]).type == events[0]["type"])
        leaked = json.dumps(world.client.get_app().data.app.to_dict(), default=str)
        that("the secret is not given back", aws.secret not in leaked)


def disk(args):
    """A disk that is full for a while: nothing starts, nothing is lost, each caption comes once."""
    place = args.work / "delivery" / "disk"
    place.mkdir(parents=True, exist_ok=True)
    if subprocess.run(["mount", "-t", "tmpfs", "-o", "size=8m", "tmpfs", place], capture_output=True).returncode != 0:
        return say("!!!! SKIPPED: disk: a small file system cannot be mounted here, which needs root")
    try:
        args_here = argparse.Namespace(**{**vars(args), "work": place})
        with World(args_here, "full") as world:
            call = world.call("talk")
            call.start_transcription()
            speaker = Speaker(world.server, "default/talk", "alice", pcm_of(SPEECH) + bytes(16_000 * 3), 1)
            speaker.wanted.set()
            eventually("somebody speaks", 10, lambda: speaker.joins)
            with (place / "fill").open("wb", buffering=0) as fill:
                try:
                    while True:
                        fill.write(bytes(4096))
                except OSError:
                    pass
            def ready():
                try:
                    with urllib.request.urlopen(f"{world.server.base}/readyz", timeout=5) as answer:
                        return answer.status, answer.read()
                except urllib.error.HTTPError as error:
                    return error.code, error.read()

            status, why = eventually("it is not ready", 5, lambda: (found := ready())[0] != 200 and found)
            that("it is not ready, and says why", status == 503 and b"full" in why, why)
            try:
                world.call("another")
                raise Wrong("expected that nothing starts while the disk is full")
            except StreamApiException as error:
                that("what would change something is refused, and says why", "full" in str(error.raw_response_body), error)
            that("what looks something up is answered", call.get().data.call.transcribing)
            time.sleep(6)
            (place / "fill").unlink()
            eventually("it is ready again", 5, lambda: ready()[0] == 200)
            time.sleep(3)
            speaker.leave()
            call.end()
            file = world.came(call, "call.transcription_ready")["call_transcription"]
            with urllib.request.urlopen(file["url"], timeout=10) as answer:
                lines = [json.loads(line) for line in answer.read().decode().splitlines()]
            starts = [line["start_time"] for line in lines]
            that("what was said meanwhile is in the transcript, once", len(lines) >= 3 and len(set(starts)) == len(lines), lines)
            gaps = [(later - earlier) for earlier, later in zip(seconds(starts), seconds(starts)[1:])]
            that("and nothing is missing between", max(gaps) < 2 * len(speaker.pcm) / 32_000, gaps)
    finally:
        subprocess.run(["umount", "-l", place], check=True)


def seconds(times):
    return [nanos(at) / 1e9 for at in times]


def main():
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--bin", required=True, type=lambda path: Path(path).resolve(), help="the program cuewire")
    parser.add_argument("--work", required=True, type=lambda path: Path(path).resolve(), help="where `run --prepare` installed")
    parser.add_argument("--model", help="as of `cuewire serve`")
    parser.add_argument("scenario", nargs="*")
    args = parser.parse_args()
    known = {one.__name__: one for one in (storages, default_bucket, uploads, hooks, queues, disk)}
    if unknown := set(args.scenario) - set(known):
        sys.exit(f"expected some of {', '.join(known)}, not {', '.join(sorted(unknown))}")
    failed = 0
    for name, scenario in known.items():
        if args.scenario and name not in args.scenario:
            continue
        began = time.monotonic()
        try:
            scenario(args)
            say(f"pass delivery: {name}: {time.monotonic() - began:.1f} s")
        except Missing as why:
            say(f"!!!! SKIPPED: delivery: {name}: {why}")
        except (Wrong, Refused, StreamApiException, AssertionError, OSError, KeyError, RuntimeError) as error:
            failed += 1
            say(f"FAIL delivery: {name}: {type(error).__name__}: {error}")
    sys.exit(1 if failed else 0)


if __name__ == "__main__":
    main()
