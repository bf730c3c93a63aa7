#!/usr/bin/env python3
"""GStreamer and FFmpeg send a recording by RTP: what is heard is what was said, also where the network loses and disorders packets.

    rtp.py --bin PROGRAM --work FOLDER [--full] [--model MODEL] [--seed 1]

In: the program; a folder. Out: a line a check, and a JSON object of what was measured behind loss; exits with 1 where anything is wrong.
Needs `gst-launch-1.0` (with the plugins base and good) and `ffmpeg`, which apt-get installs where they are missing; where it cannot, that is
said loudly. `--full`, with CUEWIRE_TEST_SPEECH: a manifest of recordings, with and without 1 % of loss and reordering.
"""

import argparse
import itertools
import json
import os
import random
import re
import select
import shutil
import socket
import subprocess
import sys
import threading
import time
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from urllib.request import urlopen

from ports import free_port
from service import Gone, Refused, Server, say, watch

TESTDATA = Path(__file__).resolve().parents[3] / "testdata" / "speech"
RECORDING = TESTDATA / "en-queue-periodic-announce.flac"
PATH = "/api/v2/video/call/default"
PACKAGES = ["gstreamer1.0-tools", "gstreamer1.0-plugins-base", "gstreamer1.0-plugins-good", "ffmpeg"]
# Of what each codec makes of speech, as a share of the words of the transcript offline.
MOST_WER = {"opus": 0.1, "pcmu": 0.2, "pcma": 0.2, "L16": 0.05}
# Recordings that are said at a time.
AT_ONCE = 4
# Words more that may be wrong behind 1 % of loss and reordering, as a share.
MOST_LOST_WER = 0.02
LOSS, REORDERING = 0.01, 0.02
FORMATS = {"opus": (97, 48_000, 2), "pcmu": (0, 8_000, 1), "pcma": (8, 8_000, 1), "L16": (98, 16_000, 1)}
GST = {
    "opus": "audio/x-raw,rate=48000,channels=1 ! opusenc audio-type=voice ! rtpopuspay pt=97",
    "pcmu": "audio/x-raw,rate=8000,channels=1 ! mulawenc ! rtppcmupay pt=0",
    "pcma": "audio/x-raw,rate=8000,channels=1 ! alawenc ! rtppcmapay pt=8",
    "L16": "audio/x-raw,rate=16000,channels=1,format=S16BE ! rtpL16pay pt=98",
}
FFMPEG = {
    "opus": "-ar 48000 -c:a libopus -b:a 32k -application voip -payload_type 97",
    "pcmu": "-ar 8000 -ac 1 -c:a pcm_mulaw -payload_type 0",
    "pcma": "-ar 8000 -ac 1 -c:a pcm_alaw -payload_type 8",
    "L16": "-ar 16000 -ac 1 -c:a pcm_s16be -payload_type 98",
}


def missing():
    return [tool for tool in ("gst-launch-1.0", "ffmpeg") if not shutil.which(tool)]


def install():
    """Whether both senders are there, installed where they were missing."""
    if not missing():
        return True
    env = {**os.environ, "DEBIAN_FRONTEND": "noninteractive"}
    for command in (["apt-get", "update", "-qq"], ["apt-get", "install", "-y", "-qq", "--no-install-recommends", *PACKAGES]):
        say(f"$ {' '.join(command)}")
        try:
            subprocess.run(command, env=env, stdin=subprocess.DEVNULL, stdout=subprocess.DEVNULL, timeout=150, check=False)
        except (OSError, subprocess.TimeoutExpired) as error:
            say(f"{error}")
    return not missing()


def sender(tool, codec, recording, port):
    """The command of a sender in real time, as docs/service.md has it."""
    if tool == "gstreamer":
        # The bin sends reports of its sender to the port behind.
        line = (f"gst-launch-1.0 -q rtpbin name=rtp filesrc location={recording} ! decodebin ! audioconvert ! audioresample ! {GST[codec]}"
                f" ! rtp.send_rtp_sink_0 rtp.send_rtp_src_0 ! udpsink host=127.0.0.1 port={port}"
                f" rtp.send_rtcp_src_0 ! udpsink host=127.0.0.1 port={port + 1} sync=false async=false")
    else:
        line = f"ffmpeg -loglevel error -nostdin -re -i {recording} {FFMPEG[codec]} -f rtp rtp://127.0.0.1:{port}"
    return line.split()


def seconds_of(recording):
    """Of a FLAC file, by its first block (RFC 9639, 8.2)."""
    head = recording.open("rb").read(26)
    return (int.from_bytes(head[21:26], "big") & (1 << 36) - 1) / (int.from_bytes(head[18:21], "big") >> 4)


def send(command, seconds):
    """Runs a sender to its end."""
    process = subprocess.Popen(command, stdin=subprocess.DEVNULL, stdout=subprocess.PIPE, stderr=subprocess.STDOUT)
    try:
        said = process.communicate(timeout=seconds + 4)[0]
    except subprocess.TimeoutExpired:
        # GStreamer's rtpbin now and then waits for ever behind its last packet.
        process.kill()
        process.communicate()
        return
    if process.returncode != 0:
        raise Refused(f"{command[0]} ended with {process.returncode}: {said[-500:]!r}")


def words(text):
    return re.sub(r"[^\w' ]", " ", text.lower()).split()


def errors(said, heard):
    """Words that differ (Levenshtein)."""
    row = list(range(len(heard) + 1))
    for i, word in enumerate(said, 1):
        last, row[0] = row[0], i
        for j, other in enumerate(heard, 1):
            last, row[j] = row[j], min(row[j] + 1, row[j - 1] + 1, last + (word != other))
    return row[-1]


class Network(threading.Thread):
    """A path of a sender's packets on which some are lost and some come behind the next one. The seed decides which."""

    def __init__(self, port, seed):
        super().__init__(daemon=True)
        self.random, self.lost, self.late, self.sent, self.is_over = random.Random(seed), 0, 0, 0, False
        self.to = [("127.0.0.1", port), ("127.0.0.1", port + 1)]
        while True:
            self.sockets = [socket.socket(socket.AF_INET, socket.SOCK_DGRAM) for _ in self.to]
            try:
                self.sockets[0].bind(("127.0.0.1", 0))
                self.port = self.sockets[0].getsockname()[1]
                if self.port % 2 == 0:
                    self.sockets[1].bind(("127.0.0.1", self.port + 1))
                    break
            except OSError:
                pass
            self.close()
        self.start()

    def run(self):
        held = None
        while not self.is_over:
            for one in select.select(self.sockets, [], [], 0.1)[0]:
                data, to = one.recv(65536), self.to[self.sockets.index(one)]
                if one is self.sockets[1]:
                    one.sendto(data, to)
                    continue
                self.sent += 1
                if self.random.random() < LOSS:
                    self.lost += 1
                    continue
                if held is None and self.random.random() < REORDERING:
                    held = data
                    self.late += 1
                    continue
                one.sendto(data, to)
                if held is not None:
                    one.sendto(held, to)
                    held = None

    def close(self):
        for one in self.sockets:
            one.close()

    def end(self):
        self.is_over = True
        self.join(5)
        self.close()


class Talk:
    """One call, in which a recording is said: the captions and the other events of it."""

    calls = itertools.count()

    def __init__(self, server):
        self.server, self.id = server, f"rtp-{next(self.calls)}"
        self.ask = server.requests()
        self.path = f"{PATH}/{self.id}"
        self.ask("POST", self.path, {"data": {"created_by_id": "host", "settings_override": {"session": {"inactivity_timeout_seconds": 3}}}})
        self.connection, connection_id = watch(server, "host")
        self.ask("GET", self.path, connection_id=connection_id)
        self.ask("POST", f"{self.path}/start_closed_captions", {"language": "en"})
        self.events, self.answer = [], None

    def say(self, tool, codec, recording, seed=None):
        """The text that was heard of a recording behind a network, where there is a seed; and that network."""
        payload_type, rate, channels = FORMATS[codec]
        self.answer = self.ask("POST", f"{self.path}/rtp", {"user_id": "speaker", "payload_type": payload_type, "codec": codec, "clock_rate": rate, "channels": channels})
        port = self.answer["port"]
        network = Network(port, seed) if seed is not None else None
        try:
            send(sender(tool, codec, recording, network.port if network else port), seconds_of(recording))
            time.sleep(0.2)
        finally:
            if network:
                network.end()
        try:
            self.ask("DELETE", f"{self.path}/rtp/{port}")
        except Refused as error:
            # A sender that did not end behind its last packet was silent for so long that its port is given back already.
            if "got 404" not in str(error):
                raise
        return self.until_left(), network

    def until_left(self):
        end = time.monotonic() + 30
        while time.monotonic() < end:
            try:
                event = self.connection.next(1)
            except TimeoutError:
                continue
            self.events.append(event)
            if event["type"] == "call.session_participant_left":
                return " ".join(event["closed_caption"]["text"] for event in self.events if event["type"] == "call.closed_caption")
        raise Refused(f"expected that the participant leaves within 30 s, got {[event['type'] for event in self.events]}")

    def end(self):
        self.connection.close()
        self.ask.close()


def offline(program, recording):
    """What the engine makes of a recording."""
    done = subprocess.run([program, "transcribe", "--language", "en", recording], stdout=subprocess.PIPE, check=True)
    return " ".join(json.loads(line)["text"] for line in done.stdout.splitlines())


def metric(address, name):
    """What `/metrics` says of a counter by now."""
    text = urlopen(f"http://{address}/metrics", timeout=10).read().decode()
    return next(int(float(line.split()[-1])) for line in text.splitlines() if line.startswith(name))


class Checks:
    def __init__(self):
        self.failed = 0

    def __call__(self, what, is_so, otherwise=""):
        self.failed += not is_so
        say(f"{'pass' if is_so else 'FAIL'} {what}{'' if is_so else f': {otherwise}'}")


def every_sender(server, program, check):
    """Each sender with each codec; all at once would be more than an engine is to keep up with."""
    expected = words(offline(program, RECORDING))
    pairs = [(tool, codec) for codec in FORMATS for tool in ("gstreamer", "ffmpeg")]
    heard = {}

    def one(tool, codec):
        talk = Talk(server)
        try:
            text, _ = talk.say(tool, codec, RECORDING)
            heard[tool, codec] = text, [event["type"] for event in talk.events]
        except (Gone, Refused, OSError) as error:
            heard[tool, codec] = "", [f"{error}"]
        finally:
            talk.end()

    for some in (pairs[:4], pairs[4:]):
        threads = [threading.Thread(target=one, args=pair) for pair in some]
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join(150)
    for (tool, codec), (text, types) in heard.items():
        wer = errors(expected, words(text)) / len(expected)
        check(f"{tool} with {codec} is heard as offline: {100 * wer:.1f} % of {len(expected)} words differ", wer <= MOST_WER[codec],
              f"expected at most {100 * MOST_WER[codec]:.0f} %, got {text!r}, {types}")
        stay = [kind.removeprefix("call.session_participant_") for kind in types if "participant" in kind]
        check(f"{tool} with {codec} joins and leaves", stay == ["joined", "left"], f"got {types}")


def lossy(server, metrics, check, seed, recordings, program):
    """Words that are wrong with and without loss and reordering, over recordings, a few at a time."""
    measured = {"recordings": len(recordings), "words": 0, "packets": 0, "lost": 0, "late": 0, "declared": 0, "wer": {}}
    declared = metric(metrics, 'cuewire_rtp_faulty_packets_total{fault="lost"}')

    def one(number, codec):
        recording, said = recordings[number]
        expected = words(said or offline(program, recording))
        wrong = {}
        for how in ("whole", "lossy"):
            talk = Talk(server)
            try:
                text, network = talk.say("gstreamer", codec, recording, seed + number if how == "lossy" else None)
            finally:
                talk.end()
            wrong[how] = errors(expected, words(text))
        return len(expected), wrong, network

    for codec in ("opus", "L16"):
        wrong = {"whole": 0, "lossy": 0}
        total = 0
        with ThreadPoolExecutor(AT_ONCE) as some:
            for count, differ, network in some.map(one, range(len(recordings)), itertools.repeat(codec)):
                total += count
                for how, of in differ.items():
                    wrong[how] += of
                measured["packets"] += network.sent
                measured["lost"] += network.lost
                measured["late"] += network.late
        measured["words"] = total
        measured["wer"][codec] = {how: round(count / max(1, total), 4) for how, count in wrong.items()}
        more = (wrong["lossy"] - wrong["whole"]) / max(1, total)
        # Of few words one may be wrong.
        bound = max(MOST_LOST_WER, 1.01 / max(1, total))
        check(f"{codec} behind loss and reordering: {100 * more:.1f} points more words are wrong, of {total}", more <= bound,
              f"expected at most {100 * bound:.1f}, got {measured}")
    measured["declared"] = metric(metrics, 'cuewire_rtp_faulty_packets_total{fault="lost"}') - declared
    # Of those lost behind a recording's last packet nothing tells.
    check(f"{measured['declared']} packets are said to be lost", 0.9 * measured["lost"] <= measured["declared"] <= measured["lost"],
          f"expected about {measured['lost']}")
    check(f"the network lost {measured['lost']} of {measured['packets']} packets, and {measured['late']} came late",
          measured["lost"] > 0 and measured["late"] > 0, "it is to do both")
    say(json.dumps(measured))


def manifest(folder):
    """Recordings of English with what is said in them, where that is known."""
    listed = next((file for file in (folder / "en" / "manifest.jsonl", folder / "manifest.jsonl") if file.exists()), None)
    if listed:
        entries = [json.loads(line) for line in listed.read_text().splitlines()]
        found = [(listed.parent / entry[name], entry.get("text")) for entry in entries for name in ("file", "path", "audio") if name in entry]
    else:
        found = [(file, None) for file in sorted((folder / "en").glob("*.flac"))]
    return [(file, text) for file, text in found if file.exists()]


def main():
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--bin", required=True, type=lambda path: Path(path).resolve(), help="the program cuewire")
    parser.add_argument("--work", required=True, type=lambda path: Path(path).resolve(), help="a folder of its own")
    parser.add_argument("--model", help="another than the built-in one")
    parser.add_argument("--full", action="store_true", help="a manifest of recordings behind loss")
    parser.add_argument("--seed", type=int, default=1, help="which packets are lost")
    args = parser.parse_args()
    if not install():
        say(f"!!!! SKIPPED: RTP of GStreamer and FFmpeg: {', '.join(missing())} cannot be had; apt-get install {' '.join(PACKAGES)}")
        return
    folder = args.work / "rtp"
    shutil.rmtree(folder, ignore_errors=True)
    metrics = f"127.0.0.1:{free_port()}"
    server, check = Server(args.bin, folder, f'rtp_ports = [24000, 24199]\nmetrics_listen = "{metrics}"\n', args.model), Checks()
    server.start()
    try:
        if args.full:
            speech = os.environ.get("CUEWIRE_TEST_SPEECH")
            if not speech:
                say("!!!! SKIPPED: loss over many recordings: CUEWIRE_TEST_SPEECH is not set (see CONTRIBUTING.md)")
            else:
                lossy(server, metrics, check, args.seed, manifest(Path(speech)), args.bin)
        else:
            every_sender(server, args.bin, check)
            lossy(server, metrics, check, args.seed, [(RECORDING, None)], args.bin)
    finally:
        code = server.stop()
    check("the server ends as it should", code == 0, f"got {code}")
    check("and says nothing of a fault", "panicked" not in server.said(), server.said()[-1000:])
    if check.failed:
        sys.exit(1)


if __name__ == "__main__":
    main()
