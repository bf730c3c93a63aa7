"""A `cuewire serve` of a script's own, and what talks with it: requests, events, audio.

In: the program, a folder, a configuration. Out: `Server`, which can be killed and started again on the same port; `Requests`, one connection
that is kept; `Socket`, a WebSocket; `Speaker`. No client and nothing that is installed is needed.
"""

import base64
import calendar
import hashlib
import hmac
import http.client
import json
import os
import re
import secrets
import signal
import socket
import struct
import subprocess
import threading
import time
from urllib.parse import urlencode

from ports import free_port

RATE = 16_000
FRAME = RATE // 50 * 2  # Bytes of 20 ms, of 16 bits.
TICK = os.sysconf("SC_CLK_TCK")
PAGE = os.sysconf("SC_PAGE_SIZE")


class Gone(OSError):
    """The other side has closed, or was never there."""


class Refused(Exception):
    """A request was answered with an error."""


def say(line):
    print(line, flush=True)


def nanos(at):
    """Of RFC 3339 in UTC."""
    whole, _, fraction = at.removesuffix("Z").partition(".")
    return calendar.timegm(time.strptime(whole, "%Y-%m-%dT%H:%M:%S")) * 1_000_000_000 + int(fraction.ljust(9, "0"))


class Server:
    """`cuewire serve` on a port that stays the same, with its data and its log in `folder`."""

    def __init__(self, program, folder, config="", model=None):
        self.program, self.folder, self.model = program, folder, model
        self.port, self.process = free_port(), None
        self.key, self.secret = f"key-{secrets.token_hex(4)}", secrets.token_hex(32)
        self.log = folder / "server.log"
        folder.mkdir(parents=True, exist_ok=True)
        (folder / "cuewire.toml").touch(mode=0o600)
        # What a busy machine cannot caption in time comes late here, and not at all where a script says so.
        (folder / "cuewire.toml").write_text(config if "[limits]" in config else f"limits.refuse_overload = false\n{config}")

    @property
    def env(self):
        return {**os.environ, "CUEWIRE_API_KEY": self.key, "CUEWIRE_API_SECRET": self.secret}

    @property
    def base(self):
        return f"http://127.0.0.1:{self.port}"

    def spawn(self):
        """Begins to start."""
        command = [self.program, "serve", "--data-dir", self.folder / "data", "--config", self.folder / "cuewire.toml",
                   "--listen", f"127.0.0.1:{self.port}"]
        if self.model:
            command += ["--model", self.model]
        with self.log.open("ab") as log:
            self.process = subprocess.Popen(command, env=self.env, stdin=subprocess.DEVNULL, stdout=log, stderr=log)

    def start(self):
        """Returns when it takes requests; how many seconds that took."""
        began = time.monotonic()
        self.spawn()
        while not self._is_ready():
            if self.process.poll() is not None or time.monotonic() > began + 60:
                raise RuntimeError(f"expected that the server is ready within 60 s, got exit code {self.process.poll()}: {self.said()[-1500:]}")
            time.sleep(0.01)
        return time.monotonic() - began

    def _is_ready(self):
        try:
            connection = http.client.HTTPConnection("127.0.0.1", self.port, timeout=5)
            connection.request("GET", "/readyz")
            return connection.getresponse().status == 200
        except (OSError, http.client.HTTPException):
            return False

    def kill(self):
        self.process.kill()
        self.process.wait()

    def stop(self):
        """Its exit code behind SIGTERM."""
        self.process.send_signal(signal.SIGTERM)
        try:
            return self.process.wait(15)
        except subprocess.TimeoutExpired:
            self.kill()
            return None

    def said(self):
        return self.log.read_text(errors="replace") if self.log.exists() else ""

    def cpu_s(self):
        """Seconds of CPU so far, user's and system's."""
        with open(f"/proc/{self.process.pid}/stat") as file:
            fields = file.read().rpartition(")")[2].split()
        return (int(fields[11]) + int(fields[12])) / TICK

    def rss_mib(self):
        with open(f"/proc/{self.process.pid}/statm") as file:
            return round(int(file.read().split()[1]) * PAGE / (1 << 20), 1)

    def token(self, claims=None):
        part = lambda value: base64.urlsafe_b64encode(json.dumps(value).encode()).rstrip(b"=")
        signed = part({"alg": "HS256", "typ": "JWT"}) + b"." + part({"server": True} if claims is None else claims)
        signature = hmac.new(self.secret.encode(), signed, hashlib.sha256).digest()
        return (signed + b"." + base64.urlsafe_b64encode(signature).rstrip(b"=")).decode()

    def user_token(self, user_id):
        return self.token({"user_id": user_id, "iat": int(time.time()) - 2})

    def requests(self, user_id=None):
        return Requests(self, self.token() if user_id is None else self.user_token(user_id))


# Behind so much silence a connection is not used again: the server closes it behind ten seconds.
IDLE_S = 5


class Requests:
    """Requests over one connection, with one token; one thread at a time."""

    def __init__(self, server, token):
        self.server, self.token, self.connection, self.used = server, token, None, 0.0

    def __call__(self, method, path, body=None, **query):
        """The answer's JSON. Raises `Gone` where there is none, `Refused` where it is an error; after `Gone` the next one connects again."""
        headers = {"Authorization": self.token, "stream-auth-type": "jwt"}
        if body is not None:
            body, headers["Content-Type"] = json.dumps(body), "application/json"
        target = f"{path}?{urlencode({'api_key': self.server.key, **query})}"
        if time.monotonic() - self.used > IDLE_S:
            self.close()
        self.used = time.monotonic()
        try:
            if not self.connection:
                self.connection = http.client.HTTPConnection("127.0.0.1", self.server.port, timeout=30)
                self.connection.connect()
                self.connection.sock.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
            self.connection.request(method, target, body, headers)
            answer = self.connection.getresponse()
            raw = answer.read()
        except (OSError, http.client.HTTPException) as error:
            self.close()
            raise Gone(f"{method} {path}: {error!r}") from error
        if answer.status >= 300:
            raise Refused(f"{method} {path}: expected that this succeeds, got {answer.status} {raw[:500]!r}")
        return json.loads(raw)

    def close(self):
        if self.connection:
            self.connection.close()
        self.connection = None


class Socket:
    """A WebSocket, from this side. Frames are not masked by anything but zeros: no proxy is between."""

    def __init__(self, port, target, headers=None, timeout=10):
        self.left = b""
        try:
            self.socket = socket.create_connection(("127.0.0.1", port), timeout)
            self.socket.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
            lines = [f"GET {target} HTTP/1.1", "Host: 127.0.0.1", "Upgrade: websocket", "Connection: Upgrade", "Sec-WebSocket-Version: 13",
                     f"Sec-WebSocket-Key: {base64.b64encode(os.urandom(16)).decode()}", *(f"{name}: {value}" for name, value in (headers or {}).items())]
            self.socket.sendall("\r\n".join([*lines, "", ""]).encode())
            while b"\r\n\r\n" not in self.left:
                self._more()
        except OSError as error:
            raise Gone(f"{target}: {error!r}") from error
        head, _, self.left = self.left.partition(b"\r\n\r\n")
        if not re.match(rb"HTTP/1\.1 101 ", head):
            raise Refused(f"{target}: expected an upgrade, got {head.splitlines()[0]!r} {self.left[:500]!r}")

    def _more(self):
        got = self.socket.recv(65536)
        if not got:
            raise Gone("closed")
        self.left += got

    def _take(self, count):
        while len(self.left) < count:
            self._more()
        got, self.left = self.left[:count], self.left[count:]
        return got

    def send(self, data):
        """Bytes as a binary frame, text or what can be JSON as a text frame."""
        if isinstance(data, bytes):
            self._send(2, data)
        else:
            self._send(1, (data if isinstance(data, str) else json.dumps(data)).encode())

    def _send(self, kind, data):
        size = bytes([0x80 | len(data)]) if len(data) < 126 else b"\xfe" + struct.pack(">H", len(data))
        try:
            self.socket.sendall(bytes([0x80 | kind]) + size + bytes(4) + data)
        except OSError as error:
            raise Gone(repr(error)) from error

    def next(self, timeout=None):
        """The JSON of the next text frame. Raises `Gone` behind the last one, `TimeoutError` where none has come."""
        self.socket.settimeout(timeout)
        try:
            while True:
                # What has come of a frame is kept until all of it has.
                while (whole := self._whole()) is None:
                    self._more()
                kind, data = whole
                if kind == 1:
                    return json.loads(data)
                if kind == 8:
                    raise Gone(f"closed with {int.from_bytes(data[:2], 'big')} {data[2:]!r}")
                if kind == 9:
                    self._send(10, data)
        except TimeoutError:
            raise
        except OSError as error:
            raise Gone(repr(error)) from error

    def _whole(self):
        """The first frame of what is left: its kind, its data. The server sends messages in one frame each."""
        left = self.left
        if len(left) < 2:
            return None
        size, at = left[1], 2
        if size >= 126:
            at += 2 if size == 126 else 8
            if len(left) < at:
                return None
            size = int.from_bytes(left[2:at], "big")
        if len(left) < at + size:
            return None
        self.left = left[at + size:]
        return left[0] & 15, left[at:at + size]

    def close(self):
        self.socket.close()


def watch(server, user_id, **more):
    """A connection for events. Out: it, and its id."""
    query = urlencode({"api_key": server.key, "stream-auth-type": "jwt", **more})
    connection = Socket(server.port, f"/video/connect?{query}")
    try:
        connection.send({"token": server.user_token(user_id), "products": ["video"], "user_details": {"id": user_id}})
        first = connection.next(10)
        if first.get("type") != "connection.ok":
            raise Refused(f"connect: expected connection.ok, got {first}")
    except (OSError, Refused):
        connection.close()
        raise
    return connection, first["connection_id"]


class Speaker:
    """Says a recording again and again, a frame of 20 ms each, and comes back whenever the server has gone away."""

    def __init__(self, server, call, user_id, pcm, speed):
        self.server, self.call, self.user_id, self.pcm, self.speed = server, call, user_id, pcm, speed
        self.problems, self.joins = [], 0
        # Whether they are to be there, and whether they ever will again.
        self.wanted, self.is_over = threading.Event(), False
        self.thread = threading.Thread(target=self._run, daemon=True)
        self.thread.start()

    def leave(self):
        """For good."""
        self.is_over = True
        self.wanted.set()
        self.thread.join(20)

    def _run(self):
        at = 0
        while True:
            self.wanted.wait()
            if self.is_over:
                return
            try:
                connection = self._join()
            except Gone:
                time.sleep(0.05)
                continue
            except Refused as error:
                self.problems.append(f"{self.user_id}: {error}")
                time.sleep(0.5)
                continue
            try:
                at = self._speak(connection, at)
            except Gone:
                pass
            finally:
                connection.close()

    def _join(self):
        query = urlencode({"api_key": self.server.key, "user_id": self.user_id, "encoding": "linear16", "sample_rate": RATE, "channels": 1})
        headers = {"Authorization": self.server.user_token(self.user_id), "stream-auth-type": "jwt"}
        connection = Socket(self.server.port, f"/video/call/{self.call}/audio?{query}", headers)
        try:
            first = connection.next(10)
        except TimeoutError as error:
            raise Refused("the audio connection: expected `joined` within 10 s") from error
        if first.get("type") != "joined":
            raise Refused(f"the audio connection: expected joined, got {first}")
        self.joins += 1
        return connection

    def _speak(self, connection, at):
        began, frames = time.monotonic(), 0
        while self.wanted.is_set() and not self.is_over:
            connection.send(self.pcm[at:at + FRAME].ljust(FRAME, b"\0"))
            at = at + FRAME if at + FRAME < len(self.pcm) else 0
            frames += 1
            ahead = frames * 0.02 / self.speed - (time.monotonic() - began)
            if ahead > 0:
                time.sleep(ahead)
        connection.send({"type": "close"})
        try:
            while True:
                connection.next(5)
        except (Gone, TimeoutError):
            return at
