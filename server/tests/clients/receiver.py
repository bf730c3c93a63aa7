"""A receiver of webhooks.

In: the secret of the app, for the signatures. Out: every POST in the order of arrival, and helpers about the order of events. Signatures are
checked with the official client's own function, so this runs with that client's Python.
"""

import gzip
import json
import threading
import time
from collections import defaultdict
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer

from getstream.webhook import verify_signature


class WrongOrder(AssertionError):
    """Events are not as expected."""


class Post:
    """One POST: `at` (monotonic seconds), `path`, `headers`, `raw`, `body` (unzipped), `event` (its JSON), `problems`, and `answered`."""

    def __init__(self, path, headers, raw, secret):
        self.at, self.path, self.headers, self.raw = time.monotonic(), path, headers, raw
        self.body, self.event, self.problems, self.answered = raw, {}, [], None
        self.is_gzip = headers.get("Content-Encoding", "").lower() == "gzip"
        try:
            self.body = gzip.decompress(raw) if self.is_gzip else raw
            self.event = json.loads(self.body)
        except (OSError, EOFError, ValueError) as error:
            self.problems.append(f"no JSON: {error}: {raw[:200]!r}")
        if not isinstance(self.event, dict):
            self.problems.append(f"expected an object, got {self.event!r}")
            self.event = {}
        if not headers.get("X-Webhook-Id"):
            self.problems.append("no X-Webhook-Id")
        signature = headers.get("X-Signature") or ""
        if not verify_signature(self.body, signature, secret):
            self.problems.append(f"X-Signature {signature!r} is not of this body")

    @property
    def id(self):
        return self.headers.get("X-Webhook-Id")

    @property
    def type(self):
        return self.event.get("type")

    @property
    def call(self):
        return self.event.get("call_cid")

    def __repr__(self):
        return f"<{self.type} of {self.call}, id {self.id}, answered {self.answered}>"


class Receiver:
    """Listens on `url` from `with` to its end.

    It answers by `status` and `delay_s`, which may be changed at any time, or by `decide`, a function of a `Post` that gives
    a status, or (status, seconds before it).
    """

    def __init__(self, secret, status=200, delay_s=0.0, decide=None, port=0):
        self.secret, self.status, self.delay_s, self.decide = secret, status, delay_s, decide
        self.posts, self.changed = [], threading.Condition()
        self.server = None
        self.port = port

    def __enter__(self):
        receiver = self

        class Handler(BaseHTTPRequestHandler):
            protocol_version = "HTTP/1.1"
            disable_nagle_algorithm = True
            timeout = 120

            def do_POST(self):
                length = int(self.headers.get("Content-Length", 0))
                raw = self.rfile.read(length) if not self._is_chunked() else self._chunks()
                if not self._is_chunked() and len(raw) < length:
                    # Whoever sent it is gone: it is no request.
                    self.close_connection = True
                    return
                post = Post(self.path, self.headers, raw, receiver.secret)
                receiver._keep(post)
                status, delay_s = receiver._answer(post)
                time.sleep(delay_s)
                # The client may be gone: then nobody has this answer.
                self.send_response_only(status)
                self.send_header("Content-Length", "0")
                self.end_headers()
                receiver._answered(post, status)

            def _is_chunked(self):
                return "chunked" in self.headers.get("Transfer-Encoding", "").lower()

            def _chunks(self):
                parts = []
                while size := int(self.rfile.readline().split(b";")[0], 16):
                    parts.append(self.rfile.read(size))
                    self.rfile.readline()
                while self.rfile.readline().strip():
                    pass
                return b"".join(parts)

            def log_message(self, *_):
                pass

        class Server(ThreadingHTTPServer):
            daemon_threads, request_queue_size = True, 128

            def handle_error(self, *_):
                pass

        self.server = Server(("127.0.0.1", self.port), Handler)
        self.port = self.server.server_address[1]
        threading.Thread(target=self.server.serve_forever, args=(0.05,), daemon=True).start()
        return self

    def __exit__(self, *_):
        self.server.shutdown()
        self.server.server_close()

    @property
    def url(self):
        return f"http://127.0.0.1:{self.port}/hook"

    def _keep(self, post):
        with self.changed:
            self.posts.append(post)
            self.changed.notify_all()

    def _answered(self, post, status):
        with self.changed:
            post.answered = status
            self.changed.notify_all()

    def _answer(self, post):
        said = self.decide(post) if self.decide else (self.status, self.delay_s)
        return said if isinstance(said, tuple) else (said, 0)

    def clear(self):
        with self.changed:
            self.posts.clear()

    def all(self):
        """The posts so far, as they came."""
        with self.changed:
            return list(self.posts)

    def wait(self, condition, seconds=15):
        """`condition`, a function of the posts so far, as soon as it is true; what it gave last where time is over."""
        end = time.monotonic() + seconds
        with self.changed:
            while not (got := condition(list(self.posts))) and (left := end - time.monotonic()) > 0:
                self.changed.wait(left)
            return got

    def once(self):
        """The posts without those whose X-Webhook-Id has come before. Raises where the same id came with another body."""
        first = {}
        for post in self.all():
            kept = first.setdefault(post.id or id(post), post)
            if kept.body != post.body:
                raise WrongOrder(f"expected the same body under X-Webhook-Id {post.id}, got {kept.body[:300]!r} and {post.body[:300]!r}")
        return list(first.values())

    def duplicates(self):
        """How many posts came again."""
        return len(self.all()) - len(self.once())

    def by_call(self):
        """{call_cid: [event]}, each event once, in order; of no call under None."""
        calls = defaultdict(list)
        for post in self.once():
            calls[post.call].append(post.event)
        return dict(calls)

    def types(self, call_cid):
        """The types of the events of a call, in order."""
        return [event.get("type") for event in self.by_call().get(call_cid, [])]

    def problems(self):
        """What is wrong with single posts: signature, id, body."""
        return [f"{post!r}: {problem}" for post in self.all() for problem in post.problems]

    def assert_in_order(self, expected, key=lambda event: event.get("type"), whole=True):
        """That each call of `expected`, {call_cid: [key of an event]}, had these, in this order, and nothing wrong with any post.

        Not `whole`: other events may lie between. Posts that came again do not count.
        """
        if found := self.problems():
            raise WrongOrder("\n".join(found[:10]))
        calls = self.by_call()
        for call, wanted in expected.items():
            got = [key(event) for event in calls.get(call, [])]
            rest = iter(got)
            good = got == list(wanted) if whole else all(one in rest for one in wanted)
            if not good:
                raise WrongOrder(f"{call}: expected {difference(list(wanted), got)}")


def difference(wanted, got):
    """Where two lists part, in words."""
    at = next((place for place, pair in enumerate(zip(wanted, got)) if pair[0] != pair[1]), min(len(wanted), len(got)))
    return f"{len(wanted)} events, got {len(got)}; from number {at} expected {wanted[at:at + 5]}, got {got[at:at + 5]}"
