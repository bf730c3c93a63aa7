"""A proxy that does to HTTP/1.1 what a bad network and a tired server do.

In: where requests go, a seed, the probability of each fault. Out: a port on the loopback interface; `counts` of what was done, `done` in
order. The seed decides about the requests in the order of their arrival.
"""

import random
import select
import socket
import struct
import threading
import time
from collections import Counter
from urllib.parse import urlsplit

KINDS = ("drop_before", "drop_after", "delay", "truncate", "error_500", "error_503", "hang", "hang_after")
LINGER = struct.pack("ii", 1, 0)


class Closed(Exception):
    """A peer has closed where a message begins."""


class Message:
    """A request or an answer as it came: `head`, with the empty line, and `body`, chunks as they were."""

    def __init__(self, head):
        self.head, self.body = head, b""
        lines = head.decode("latin-1").split("\r\n")
        self.first = lines[0].split(" ", 2)
        self.headers = {name.strip().lower(): value.strip() for name, _, value in (line.partition(":") for line in lines[1:] if line)}

    @property
    def status(self):
        return int(self.first[1])

    @property
    def method(self):
        return self.first[0]

    @property
    def path(self):
        return self.first[1]

    def has(self, name, value):
        return value in self.headers.get(name, "").lower()

    def keeps_alive(self):
        return not self.has("connection", "close") and "HTTP/1.1" in (self.first[0], self.first[-1].strip())


class Wire:
    """A socket, with what was read of it and not yet used."""

    def __init__(self, connection):
        self.connection, self.left = connection, b""

    def more(self):
        got = self.connection.recv(65536)
        self.left += got
        return bool(got)

    def until(self, mark):
        while mark not in self.left:
            if not self.more():
                raise Closed if not self.left else ConnectionError("closed within a head")
        got, _, self.left = self.left.partition(mark)
        return got + mark

    def exactly(self, count):
        while len(self.left) < count:
            if not self.more():
                raise ConnectionError("closed within a body")
        got, self.left = self.left[:count], self.left[count:]
        return got

    def rest(self):
        while self.more():
            pass
        got, self.left = self.left, b""
        return got

    def chunks(self):
        """All of them, as they are on the wire, with the trailer."""
        parts = []
        while True:
            line = self.until(b"\r\n")
            parts.append(line)
            size = int(line.split(b";")[0], 16)
            if size == 0:
                break
            parts.append(self.exactly(size + 2))
        while parts[-1] != b"\r\n":
            parts.append(self.until(b"\r\n"))
        return b"".join(parts)

    def request(self):
        message = Message(self.until(b"\r\n\r\n"))
        if message.has("expect", "100-continue"):
            self.connection.sendall(b"HTTP/1.1 100 Continue\r\n\r\n")
        if message.has("transfer-encoding", "chunked"):
            message.body = self.chunks()
        else:
            message.body = self.exactly(int(message.headers.get("content-length", 0)))
        return message

    def answer(self, method):
        message = Message(self.until(b"\r\n\r\n"))
        while 100 <= message.status < 200 and message.status != 101:
            message = Message(self.until(b"\r\n\r\n"))
        if method == "HEAD" or message.status in (101, 204, 304):
            return message
        if message.has("transfer-encoding", "chunked"):
            message.body = self.chunks()
        elif "content-length" in message.headers:
            message.body = self.exactly(int(message.headers["content-length"]))
        else:
            message.body = self.rest()
            message.headers["connection"] = "close"
        return message

    def close(self, at_once=False):
        """`at_once` resets, so that nothing that was sent can still be on its way."""
        try:
            if at_once:
                self.connection.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, LINGER)
            else:
                self.connection.shutdown(socket.SHUT_RDWR)
        except OSError:
            pass
        self.connection.close()


class Faults:
    """In front of `upstream`, a port of 127.0.0.1 or an `http://` URL; use it as a context manager.

    `plan` gives {kind: probability}; what is left of 1 passes:
      drop_before, drop_after  the connection is closed without an answer, before or after the request has reached the upstream
      delay                    the request goes on after `delay` seconds, a range
      truncate                 a part of the answer, then the connection is closed
      error_500, error_503     an answer of our own; the request does not reach the upstream
      hang, hang_after         nothing comes, for `hang_s` seconds or until the client closes, and the connection is closed
    `only`, a function of a `Message`, says which requests can suffer; the others pass and are not counted.
    """

    def __init__(self, upstream, plan=None, seed=1, delay=(0.005, 2.0), hang_s=10, only=None):
        target = urlsplit(upstream) if isinstance(upstream, str) else None
        if target and target.scheme != "http":
            raise ValueError(f"expected http, got {upstream}")
        self.upstream = (target.hostname, target.port or 80) if target else ("127.0.0.1", upstream)
        self.random, self.delay, self.hang_s, self.only = random.Random(seed), delay, hang_s, only
        self.counts, self.done, self.forced = Counter(), [], []
        self.lock, self.open, self.listener, self.port = threading.Lock(), set(), None, 0
        self.set(plan or {})

    def set(self, plan):
        """Another plan from now on; {} passes everything."""
        if unknown := set(plan) - set(KINDS):
            raise ValueError(f"expected of {', '.join(KINDS)}, got {', '.join(sorted(unknown))}")
        if sum(plan.values()) > 1 + 1e-9:
            raise ValueError(f"expected probabilities of at most 1 together, got {plan}")
        self.plan = dict(plan)

    def next(self, *kinds):
        """What the next requests get, before the plan goes on; `pass` is one too."""
        if unknown := set(kinds) - {"pass", *KINDS}:
            raise ValueError(f"unknown: {', '.join(sorted(unknown))}")
        with self.lock:
            self.forced.extend(kinds)

    @property
    def url(self):
        return f"http://127.0.0.1:{self.port}"

    def __enter__(self):
        self.up()
        return self

    def __exit__(self, *_):
        self.down()

    def up(self):
        """Listens, on the same port as before."""
        if self.listener:
            return
        listener = socket.create_server(("127.0.0.1", self.port), backlog=128)
        self.port, self.listener = listener.getsockname()[1], listener
        threading.Thread(target=self._accept, args=(listener,), daemon=True).start()

    def down(self):
        """Connections are refused until `up`, and those that are open end."""
        listener, self.listener = self.listener, None
        if listener:
            # Of `close` alone a thread within `accept` learns nothing.
            listener.shutdown(socket.SHUT_RDWR)
            listener.close()
        with self.lock:
            wires = list(self.open)
        for wire in wires:
            wire.close(at_once=True)

    def _accept(self, listener):
        while True:
            try:
                connection, _ = listener.accept()
            except OSError:
                return
            threading.Thread(target=self._serve, args=(Wire(connection),), daemon=True).start()

    def _serve(self, client):
        with self.lock:
            self.open.add(client)
        behind = None
        try:
            client.connection.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
            while True:
                behind, goes_on = self._one(client, behind)
                if not goes_on:
                    return
        except (Closed, OSError, ValueError):
            pass
        finally:
            with self.lock:
                self.open.discard(client)
            client.close()
            if behind:
                behind.close()

    def _kind(self, request):
        with self.lock:
            if self.only and not self.only(request):
                return "pass"
            kind = self.forced.pop(0) if self.forced else self._drawn()
            self.counts[kind] += 1
            self.done.append((kind, request.method, request.path))
            return kind

    def _drawn(self):
        drawn = self.random.random()
        for kind, probability in self.plan.items():
            if drawn < probability:
                return kind
            drawn -= probability
        return "pass"

    def _one(self, client, behind):
        """One request. Out: the connection to the upstream, and whether the client's goes on."""
        request = client.request()
        kind = self._kind(request)
        if kind == "drop_before":
            return behind, False
        if kind == "hang":
            self._hang(client)
            return behind, False
        if kind in ("error_500", "error_503"):
            client.connection.sendall(own_answer(int(kind[-3:])))
            return behind, request.keeps_alive()
        if kind == "delay":
            with self.lock:
                seconds = self.random.uniform(*self.delay)
            time.sleep(seconds)
        try:
            behind, answer = self._ask(request, behind)
        except (Closed, OSError):
            client.connection.sendall(own_answer(502))
            return None, request.keeps_alive()
        if kind == "drop_after":
            return behind, False
        if kind == "hang_after":
            self._hang(client)
            return behind, False
        whole = answer.head + answer.body
        if kind == "truncate":
            with self.lock:
                # Some clients take half a head for a whole one, but none half a status line.
                cut = len(answer.head) + self.random.randrange(len(answer.body)) if answer.body else len(b"HTTP/1.1 ")
            client.connection.sendall(whole[:cut])
            return behind, False
        client.connection.sendall(whole)
        if answer.status == 101:
            pipe(client, behind)
            return behind, False
        return behind, request.keeps_alive() and answer.keeps_alive()

    def _ask(self, request, behind):
        """The upstream's answer; once more on a new connection where one that was kept has been closed meanwhile."""
        if behind and select.select([behind.connection], [], [], 0)[0]:
            behind.close()
            behind = None
        if not behind:
            behind = Wire(socket.create_connection(self.upstream, 10))
            behind.connection.settimeout(60)
            behind.connection.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
        behind.connection.sendall(without_expect(request.head) + request.body)
        answer = behind.answer(request.method)
        if not answer.keeps_alive() and answer.status != 101:
            behind.close()
            return None, answer
        return behind, answer

    def _hang(self, client):
        end = time.monotonic() + self.hang_s
        while self.listener and (left := end - time.monotonic()) > 0:
            if select.select([client.connection], [], [], min(left, 0.2))[0] and not client.more():
                return


def without_expect(head):
    lines = head.split(b"\r\n")
    return b"\r\n".join(line for line in lines if not line.lower().startswith(b"expect:"))


def own_answer(status):
    body = b"a fault on purpose\n"
    head = f"HTTP/1.1 {status} Fault\r\nContent-Type: text/plain\r\nContent-Length: {len(body)}\r\n\r\n"
    return head.encode() + body


def pipe(client, behind):
    """Bytes both ways until either closes: what follows an upgrade."""
    for one in (client, behind):
        one.connection.settimeout(None)
    pairs = {client.connection: behind, behind.connection: client}
    for one, other in ((client, behind), (behind, client)):
        if one.left:
            other.connection.sendall(one.left)
    while True:
        for ready in select.select(list(pairs), [], [])[0]:
            got = ready.recv(65536)
            if not got:
                return
            pairs[ready].connection.sendall(got)
