"""Storages and a queue on the loopback interface: S3 and SQS, Azure Blob, Google Cloud Storage.

In: `work`, the folder with what `run --prepare` installed (`emulators`, a venv of requirements-emulators.txt, and `node`). Out: a context
manager each, which answers once it is entered, and raises `Missing` if it cannot be had. They hold what they have in memory.

What stands before moto and before the emulator of Google's storage checks signatures, and refuses what is not signed with the key.
"""

import base64
import email.utils
import hashlib
import hmac
import http.client
import json
import os
import re
import shutil
import socket
import ssl
import subprocess
import tempfile
import threading
import time
import urllib.error
import urllib.request
import xml.etree.ElementTree as xml
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from urllib.parse import parse_qsl, quote, unquote, urlencode, urlsplit

from ports import free_port

START_S = 60
HOP_BY_HOP = {"connection", "keep-alive", "transfer-encoding", "content-length", "te", "upgrade", "proxy-connection"}
DIRECT = urllib.request.build_opener(urllib.request.ProxyHandler({}))


class Missing(Exception):
    """An emulator cannot be had; the text says why."""


def send(method, url, headers=None, body=None, context=None):
    """The answer's status, headers and bytes, whatever the status."""
    opener = urllib.request.build_opener(urllib.request.ProxyHandler({}), urllib.request.HTTPSHandler(context=context)) if context else DIRECT
    kind = {} if body is None else {"Content-Type": "application/octet-stream"}
    request = urllib.request.Request(url, data=body, method=method, headers={**kind, **(headers or {})})
    try:
        answer = opener.open(request, timeout=20)
    except urllib.error.HTTPError as error:
        answer = error
    with answer:
        return answer.status, answer.headers, answer.read()


def must(method, url, *args, **how):
    """The answer's bytes, of a request that must succeed."""
    status, _, body = send(method, url, *args, **how)
    if status >= 300:
        raise RuntimeError(f"{method} {url}: expected that this succeeds, got {status} {body[:500]!r}")
    return body


class Process:
    """A program of another's that listens on a port of ours. In: `command`, a function of that port, and a path that it answers."""

    def __init__(self, name, needs, command, env=None):
        self.name, self.needs, self.command, self.env = name, needs, command, env or {}
        self.port, self.process, self.log = free_port(), None, None

    def start(self):
        for file in self.needs:
            if not Path(file).exists():
                raise Missing(f"{self.name}: {file} is not there; `run --prepare` installs it")
        self.log = tempfile.TemporaryFile()
        try:
            self.process = subprocess.Popen([str(part) for part in self.command(self.port)], stdin=subprocess.DEVNULL, stdout=self.log,
                                            stderr=subprocess.STDOUT, env={**os.environ, **self.env})
        except OSError as error:
            raise Missing(f"{self.name}: {error}") from error
        self._wait()

    def _wait(self):
        end = time.monotonic() + START_S
        while self.process.poll() is None and time.monotonic() < end:
            try:
                with socket.create_connection(("127.0.0.1", self.port), 1):
                    return
            except OSError:
                time.sleep(0.05)
        said = self.said()
        self.stop()
        raise Missing(f"{self.name}: expected that it listens within {START_S} s; it said: {said[-800:]}")

    def said(self):
        self.log.seek(0)
        return self.log.read().decode(errors="replace")

    def stop(self):
        if self.process and self.process.poll() is None:
            self.process.terminate()
            try:
                self.process.wait(5)
            except subprocess.TimeoutExpired:
                self.process.kill()
                self.process.wait()
        if self.log:
            self.log.close()


class Request:
    """What came to a `Front`."""

    def __init__(self, method, target, headers, body):
        self.method, self.target, self.headers, self.body = method, target, headers, body
        self.path, _, self.query_text = target.partition("?")
        self.query = dict(parse_qsl(self.query_text, keep_blank_values=True))


class Front:
    """An HTTP server before another. `handle` gets a `Request` and gives (status, headers, body), most often of `forward`.

    `seen` has (method, path, status) of everything that it answered.
    """

    def __init__(self, handle=None, upstream=None, context=None, upstream_context=None):
        self.handle, self.upstream, self.upstream_context, self.seen = handle or self.forward, upstream, upstream_context, []
        front = self

        class Handler(BaseHTTPRequestHandler):
            protocol_version = "HTTP/1.1"
            disable_nagle_algorithm = True
            timeout = 60

            def answer(self):
                request = Request(self.command, self.path, self.headers, self.body())
                if request.body is None:
                    self.close_connection = True
                    return
                try:
                    status, headers, body = front.handle(request)
                except OSError as error:
                    status, headers, body = 502, {}, str(error).encode()
                front.seen.append((request.method, unquote(request.path), status))
                try:
                    self.say(status, headers, body)
                except ConnectionError:
                    # The client is gone meanwhile.
                    self.close_connection = True

            def say(self, status, headers, body):
                self.send_response_only(status)
                for name, value in headers.items():
                    self.send_header(name, value)
                has_body = status >= 200 and status not in (204, 304)
                if has_body and not (self.command == "HEAD" and "content-length" in {name.lower() for name in headers}):
                    self.send_header("Content-Length", str(len(body)))
                self.end_headers()
                if self.command != "HEAD" and has_body:
                    self.wfile.write(body)

            def body(self):
                if "chunked" not in self.headers.get("Transfer-Encoding", ""):
                    length = int(self.headers.get("Content-Length", 0))
                    whole = self.rfile.read(length)
                    # Of a client that is gone meanwhile.
                    return whole if len(whole) == length else None
                parts = []
                while size := int(self.rfile.readline().split(b";")[0], 16):
                    parts.append(self.rfile.read(size))
                    self.rfile.readline()
                while self.rfile.readline().strip():
                    pass
                return b"".join(parts)

            do_GET = do_HEAD = do_PUT = do_POST = do_DELETE = answer

            def log_message(self, *_):
                pass

        self.server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
        self.server.daemon_threads = True
        if context:
            self.server.socket = context.wrap_socket(self.server.socket, server_side=True)
        self.port = self.server.server_address[1]
        self.url = f"{'https' if context else 'http'}://127.0.0.1:{self.port}"
        threading.Thread(target=self.server.serve_forever, args=(0.05,), daemon=True).start()

    def forward(self, request, method=None, target=None, changed=None):
        """Of what is behind us, asked with `changed` headers: the status, headers without those of the connection, body."""
        kind, how = (http.client.HTTPSConnection, {"context": self.upstream_context}) if self.upstream_context else (http.client.HTTPConnection, {})
        connection = kind("127.0.0.1", self.upstream, timeout=30, **how)
        try:
            headers = {name: value for name, value in request.headers.items() if name.lower() not in HOP_BY_HOP | {"expect"} | set(changed or {})}
            headers |= changed or {}
            connection.request(method or request.method, target or request.target, request.body or None, headers)
            answer = connection.getresponse()
            body = answer.read()
            kept = {name: value for name, value in answer.getheaders() if name.lower() not in HOP_BY_HOP}
            if request.method == "HEAD" and (length := answer.getheader("Content-Length")):
                kept["Content-Length"] = length
            return answer.status, kept, body
        finally:
            connection.close()

    def stop(self):
        self.server.shutdown()
        self.server.server_close()


class Emulator:
    """What they have in common: entered it runs, left it has stopped. `url` is where it is; `seen` is what it was asked for."""

    process = front = None

    def __enter__(self):
        try:
            self.process.start()
            self.front = self.before()
        except BaseException:
            self.__exit__()
            raise
        return self

    def __exit__(self, *_):
        if self.front:
            self.front.stop()
        self.process.stop()

    def before(self):
        """The `Front` of it, if it has one."""

    @property
    def url(self):
        return self.front.url

    @property
    def seen(self):
        return self.front.seen


class S3(Emulator):
    """S3 and SQS, by moto. A client needs `url` (path style), `region`, `key` and `secret`; other keys are refused as S3 and SQS do."""

    region = "eu-central-1"

    def __init__(self, work):
        python = Path(work) / "emulators" / "bin" / "python"
        self.process = Process("S3 (moto)", [python, python.parent / "moto_server"], lambda port: [
            python, "-m", "moto.server", "-H", "127.0.0.1", "-p", port])
        self.key, self.secret = "AKIAEXAMPLE" + os.urandom(4).hex().upper(), os.urandom(20).hex()

    def before(self):
        return Front(self._handle, self.process.port)

    def _handle(self, request):
        if request.path.startswith("/moto-api"):
            return 404, {}, b""
        wrong = wrong_sigv4(request, self.key, self.secret)
        if not wrong:
            return self.front.forward(request)
        if "X-Amz-Target" in request.headers:
            error = {"__type": f"com.amazonaws.sqs#{wrong}", "message": wrong}
            return 403, {"Content-Type": "application/x-amz-json-1.0"}, json.dumps(error).encode()
        said = f'<?xml version="1.0" encoding="UTF-8"?><Error><Code>{wrong}</Code><Message>{wrong}</Message></Error>'
        return 403, {"Content-Type": "application/xml"}, said.encode()

    def _direct(self, service, method, path, body=None, **headers):
        """Moto learns from the credential which service is meant."""
        credential = f"{self.key}/20300101/{self.region}/{service}/aws4_request"
        authorization = f"AWS4-HMAC-SHA256 Credential={credential}, SignedHeaders=host, Signature=0"
        return must(method, f"http://127.0.0.1:{self.process.port}{path}", {"Authorization": authorization, **headers}, body)

    def make(self, bucket):
        where = f"<CreateBucketConfiguration><LocationConstraint>{self.region}</LocationConstraint></CreateBucketConfiguration>"
        self._direct("s3", "PUT", f"/{bucket}", where.encode())

    def list(self, bucket):
        """{name: bytes}."""
        names, query = [], {"list-type": "2"}
        while True:
            found = without_namespaces(self._direct("s3", "GET", f"/{bucket}?{urlencode(query)}"))
            names += [one.findtext("Key") for one in found.iter("Contents")]
            if found.findtext("IsTruncated") != "true":
                return {name: self._direct("s3", "GET", f"/{bucket}/{quote(name)}") for name in names}
            query["continuation-token"] = found.findtext("NextContinuationToken")

    def _sqs(self, action, **said):
        kind = {"X-Amz-Target": f"AmazonSQS.{action}", "Content-Type": "application/x-amz-json-1.0"}
        return json.loads(self._direct("sqs", "POST", "/", json.dumps(said).encode(), **kind) or b"{}")

    def queue(self, name):
        """The URL of a new queue, which is behind our `url`. A name that ends in `.fifo` makes it one that keeps the order."""
        attributes = {"Attributes": {"FifoQueue": "true"}} if name.endswith(".fifo") else {}
        made = self._sqs("CreateQueue", QueueName=name, **attributes)["QueueUrl"]
        return self.url + urlsplit(made).path

    def messages(self, queue_url):
        """The bodies of what is in a queue, which is then empty."""
        bodies = []
        while found := self._sqs("ReceiveMessage", QueueUrl=queue_url, MaxNumberOfMessages=10).get("Messages"):
            for one in found:
                bodies.append(one["Body"])
                self._sqs("DeleteMessage", QueueUrl=queue_url, ReceiptHandle=one["ReceiptHandle"])
        return bodies


def without_namespaces(text):
    tree = xml.fromstring(text)
    for one in tree.iter():
        one.tag = one.tag.rpartition("}")[2]
    return tree


def hmac256(key, said):
    return hmac.new(key, said.encode(), hashlib.sha256).digest()


def canonical(request, query, names, payload, headers=None):
    """What both AWS and Google sign of a request."""
    said = lambda name: (headers or {}).get(name) or " ".join(", ".join(request.headers.get_all(name, [""])).split())
    pairs = sorted((quote(name, safe="-_.~"), quote(value, safe="-_.~")) for name, value in query)
    return "\n".join([request.method, request.path, "&".join(f"{name}={value}" for name, value in pairs),
                      *(f"{name}:{said(name)}" for name in names), "", ";".join(names), payload])


def is_over(date, seconds):
    began = time.mktime(time.strptime(date, "%Y%m%dT%H%M%SZ")) - time.timezone
    return time.time() > began + int(seconds)


def wrong_sigv4(request, key, secret):
    """The code of AWS' error if a request is not signed with `secret`, in its headers or its query; else None."""
    authorization, query = request.headers.get("Authorization", ""), request.query
    if authorization.startswith("AWS4-HMAC-SHA256 "):
        said = dict(part.strip().split("=", 1) for part in authorization.split(" ", 1)[1].split(","))
        credential, names, given = said["Credential"], said["SignedHeaders"], said["Signature"]
        date = request.headers["X-Amz-Date"]
        actual = hashlib.sha256(request.body).hexdigest()
        payload = request.headers.get("X-Amz-Content-Sha256", actual)
        if re.fullmatch("[0-9a-f]{64}", payload) and payload != actual:
            return "XAmzContentSHA256Mismatch"
        if is_over(date, 900):
            return "RequestTimeTooSkewed"
    elif "X-Amz-Signature" in query:
        credential, names, given = query["X-Amz-Credential"], query["X-Amz-SignedHeaders"], query["X-Amz-Signature"]
        date, payload = query["X-Amz-Date"], "UNSIGNED-PAYLOAD"
        if is_over(date, query["X-Amz-Expires"]):
            return "AccessDenied"
    else:
        return "AccessDenied"
    if credential.split("/")[0] != key:
        return "InvalidClientTokenId" if "X-Amz-Target" in request.headers else "InvalidAccessKeyId"
    scope = credential.split("/")[1:]
    signed = canonical(request, [(name, value) for name, value in query.items() if name != "X-Amz-Signature"], names.split(";"), payload)
    text = "\n".join(["AWS4-HMAC-SHA256", date, "/".join(scope), hashlib.sha256(signed.encode()).hexdigest()])
    signing_key = ("AWS4" + secret).encode()
    for part in scope:
        signing_key = hmac256(signing_key, part)
    return None if hmac.compare_digest(hmac256(signing_key, text).hex(), given) else "SignatureDoesNotMatch"


class Azurite(Emulator):
    """Azure Blob. A client needs `url` (AZURITE_BLOB_STORAGE_URL; the account is a part of the path), `account` and `account_key`.

    With `oauth`: HTTPS, and tokens by client secret. A client needs `endpoint`, `authority`, `tenant`, `client_id` and `client_secret`, and to
    trust `certificate` (SSL_CERT_FILE). Only tokens that `authority` gave are taken.
    """

    account = "devstoreaccount1"

    def __init__(self, work, oauth=False):
        self.work, self.oauth, self.folder = Path(work), oauth, tempfile.TemporaryDirectory()
        main = self.work / "node" / "node_modules" / "azurite" / "dist" / "src" / "blob" / "main.js"
        self.account_key = base64.b64encode(os.urandom(64)).decode()
        self.process = Process("Azure (azurite)", [main], lambda port: [
            "node", main, "--inMemoryPersistence", "--skipApiVersionCheck", "--disableTelemetry", "--silent",
            "--blobHost", "127.0.0.1", "--blobPort", port, *self._https(),
        ], {"AZURITE_ACCOUNTS": f"{self.account}:{self.account_key}"})
        self.tenant, self.client_id, self.client_secret = "5d1f2b44-6a0e-4b8a-9d6c-0f4f4e0f7a11", "cuewire", os.urandom(12).hex()
        self.certificate, self.context, self.server_context, self.tokens = None, None, None, None

    def _https(self):
        if not self.oauth:
            return []
        self.certificate, chain, key = certificates(Path(self.folder.name))
        self.context = ssl.create_default_context(cafile=self.certificate)
        self.server_context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
        self.server_context.load_cert_chain(chain, key)
        return ["--oauth", "basic", "--cert", chain, "--key", key]

    def before(self):
        if self.oauth:
            self.tokens = Front(self._token, context=self.server_context)
        return Front(None, self.process.port, self.server_context, self.context)

    def __exit__(self, *_):
        super().__exit__()
        if self.tokens:
            self.tokens.stop()
        self.folder.cleanup()

    @property
    def endpoint(self):
        return f"{self.url}/{self.account}"

    @property
    def authority(self):
        return self.tokens.url

    def _token(self, request):
        """What the authority answers."""
        form = dict(parse_qsl(request.body.decode()))
        if request.path != f"/{self.tenant}/oauth2/v2.0/token":
            return 404, {}, b"{}"
        if (form.get("client_id"), form.get("client_secret")) != (self.client_id, self.client_secret):
            error = {"error": "invalid_client", "error_description": "AADSTS7000215: Invalid client secret provided."}
            return 401, {"Content-Type": "application/json"}, json.dumps(error).encode()
        now = int(time.time())
        claims = {"aud": "https://storage.azure.com", "iss": f"https://sts.windows.net/{self.tenant}/", "iat": now - 60, "nbf": now - 60,
                  "exp": now + 3600, "oid": self.client_id, "tid": self.tenant, "sub": self.client_id}
        part = lambda value: base64.urlsafe_b64encode(json.dumps(value).encode()).rstrip(b"=").decode()
        token = f"{part({'alg': 'RS256', 'typ': 'JWT'})}.{part(claims)}.{'0' * 342}"
        answer = {"token_type": "Bearer", "expires_in": 3599, "access_token": token}
        return 200, {"Content-Type": "application/json"}, json.dumps(answer).encode()

    def _send(self, method, path, query=None):
        """Signed with the account's key."""
        query, version = query or {}, {"x-ms-date": email.utils.formatdate(usegmt=True), "x-ms-version": "2023-11-03"}
        resource = f"/{self.account}/{self.account}{path}" + "".join(f"\n{name}:{query[name]}" for name in sorted(query))
        text = "\n".join([method, *[""] * 11, *(f"{name}:{version[name]}" for name in sorted(version)), resource])
        signature = base64.b64encode(hmac256(base64.b64decode(self.account_key), text)).decode()
        url = f"{self.endpoint}{path}" + (f"?{urlencode(query)}" if query else "")
        return must(method, url, {**version, "Authorization": f"SharedKey {self.account}:{signature}"}, context=self.context)

    def make(self, container):
        self._send("PUT", f"/{container}", {"restype": "container"})

    def list(self, container):
        """{name: bytes}."""
        names, marker = [], ""
        while True:
            query = {"restype": "container", "comp": "list", **({"marker": marker} if marker else {})}
            found = without_namespaces(self._send("GET", f"/{container}", query).lstrip(b"\xef\xbb\xbf"))
            names += [one.findtext("Name") for one in found.iter("Blob")]
            if not (marker := found.findtext("NextMarker")):
                return {name: self._send("GET", f"/{container}/{quote(name)}") for name in names}


def openssl(*args):
    if not shutil.which("openssl"):
        raise Missing("expected `openssl` on PATH, for keys and certificates")
    done = subprocess.run(["openssl", *map(str, args)], capture_output=True, stdin=subprocess.DEVNULL)
    if done.returncode:
        raise Missing(f"openssl {args[0]}: {done.stderr.decode(errors='replace')[-500:]}")
    return done.stdout.decode()


def certificates(folder):
    """Of an authority, of 127.0.0.1, and the latter's key: three files in `folder`."""
    authority, authority_key, leaf, key = (folder / name for name in ("authority.pem", "authority.key", "leaf.pem", "leaf.key"))
    new = ["req", "-x509", "-newkey", "rsa:2048", "-nodes", "-days", "2"]
    openssl(*new, "-subj", "/CN=Loopback", "-keyout", authority_key, "-out", authority)
    openssl(*new, "-subj", "/CN=127.0.0.1", "-addext", "subjectAltName=IP:127.0.0.1", "-addext", "basicConstraints=critical,CA:FALSE",
            "-CA", authority, "-CAkey", authority_key, "-keyout", key, "-out", leaf)
    return authority, leaf, key


class Gcs(Emulator):
    """Google Cloud Storage. A client needs `credentials`, the JSON of a service account, which names `url` as its `gcs_base_url` too."""

    def __init__(self, work):
        python = Path(work) / "emulators" / "bin" / "python"
        self.process = Process("Google Cloud Storage (gcp-storage-emulator)", [python, python.parent / "gcp-storage-emulator"], lambda port: [
            python, "-m", "gcp_storage_emulator", "start", "--host", "127.0.0.1", "--port", port, "--in-memory", "-q"])
        self.made, self.lock, self.private_key, self.modulus = {}, threading.Lock(), "", 0

    def before(self):
        with tempfile.TemporaryDirectory() as folder:
            key = Path(folder) / "key.pem"
            openssl("genpkey", "-algorithm", "RSA", "-pkeyopt", "rsa_keygen_bits:2048", "-out", key)
            self.private_key = key.read_text()
            self.modulus = int(openssl("rsa", "-in", key, "-noout", "-modulus").strip().partition("=")[2], 16)
        return Front(self._handle, self.process.port)

    @property
    def credentials(self):
        account = "cuewire@example.iam.gserviceaccount.com"
        return json.dumps({"type": "service_account", "project_id": "example", "private_key_id": "1", "private_key": self.private_key,
                           "client_email": account, "client_id": "1", "gcs_base_url": self.url})

    def _handle(self, request):
        """As the XML API does: ETag, Last-Modified, a generation, and If-Generation-Match, which the emulator lacks."""
        if wrong := self._wrong(request):
            said = f"<?xml version='1.0' encoding='UTF-8'?><Error><Code>{wrong[1]}</Code><Message>{wrong[1]}</Message></Error>"
            return wrong[0], {"Content-Type": "application/xml"}, said.encode()
        _, bucket, name = request.path.split("/", 2) if request.path.count("/") > 1 else ("", request.path[1:], "")
        place = (bucket, unquote(name))
        with self.lock:
            if request.method == "PUT" and request.headers.get("x-goog-if-generation-match") == "0" and place in self.made:
                said = b"<Error><Code>PreconditionFailed</Code><Message>At least one of the conditions did not hold.</Message></Error>"
                return 412, {"Content-Type": "application/xml"}, said
            return self._do(request, place)

    def _do(self, request, place):
        as_json = f"/storage/v1/b/{place[0]}/o/{quote(place[1], safe='')}"
        if request.method == "DELETE":
            status, headers, body = self.front.forward(request, target=as_json)
            self.made.pop(place, None)
        elif request.method == "HEAD":
            status, headers, body = self.front.forward(request, method="GET")
        elif request.method == "PUT" and not request.body:
            status, headers, body = self._put_nothing(place)
        else:
            # What calls itself JSON the emulator would parse.
            changed = {"content-type": "application/octet-stream"} if request.method == "PUT" else None
            status, headers, body = self.front.forward(request, changed=changed)
        if request.method == "PUT" and status < 300:
            etag, now = hashlib.md5(request.body).hexdigest(), time.time()
            self.made[place] = {"ETag": f'"{etag}"', "Last-Modified": email.utils.formatdate(now, usegmt=True),
                                "x-goog-generation": str(int(now * 1_000_000))}
        if status < 300:
            headers = {**headers, **self.made.get(place, {})}
        return status, headers, body

    def _put_nothing(self, place):
        """The emulator fails at an empty body, but for a part of one."""
        part = "Content-Type: application/{}\r\n\r\n{}\r\n"
        parts = [part.format("json", json.dumps({"name": place[1]})), part.format("octet-stream", "")]
        body = "".join(f"--parts\r\n{one}" for one in parts) + "--parts--\r\n"
        url = f"http://127.0.0.1:{self.process.port}/upload/storage/v1/b/{place[0]}/o?uploadType=multipart"
        status, _, _ = send("POST", url, {"Content-Type": "multipart/related; boundary=parts"}, body.encode())
        return status, {}, b""

    def _wrong(self, request):
        """A status and Google's code if a request is not signed with our key, as a token or in its query; else None."""
        if request.headers.get("Authorization", "").startswith("Bearer "):
            signed, _, signature = request.headers["Authorization"][7:].strip().rpartition(".")
            signature = base64.urlsafe_b64decode(signature + "=" * (-len(signature) % 4))
            return None if self._signed(signed, signature) else (401, "AuthenticationRequired")
        query = request.query
        if "X-Goog-Signature" not in query:
            return 403, "AccessDenied"
        if is_over(query["X-Goog-Date"], query["X-Goog-Expires"]):
            return 400, "ExpiredToken"
        said = canonical(request, [(name, value) for name, value in query.items() if name != "X-Goog-Signature"],
                         query["X-Goog-SignedHeaders"].split(";"), "UNSIGNED-PAYLOAD", {"host": "storage.googleapis.com"})
        scope = query["X-Goog-Credential"].split("/", 1)[1]
        text = "\n".join(["GOOG4-RSA-SHA256", query["X-Goog-Date"], scope, hashlib.sha256(said.encode()).hexdigest()])
        return None if self._signed(text, bytes.fromhex(query["X-Goog-Signature"])) else (403, "SignatureDoesNotMatch")

    def _signed(self, text, signature):
        """RSA with SHA-256, PKCS #1 v1.5."""
        size = (self.modulus.bit_length() + 7) // 8
        digest = bytes.fromhex("3031300d060960864801650304020105000420") + hashlib.sha256(text.encode()).digest()
        padded = b"\0\1" + b"\xff" * (size - len(digest) - 3) + b"\0" + digest
        return pow(int.from_bytes(signature, "big"), 65537, self.modulus).to_bytes(size, "big") == padded

    def make(self, bucket):
        must("POST", f"http://127.0.0.1:{self.process.port}/storage/v1/b?project=example", {"Content-Type": "application/json"},
             json.dumps({"name": bucket}).encode())

    def list(self, bucket):
        """{name: bytes}."""
        base = f"http://127.0.0.1:{self.process.port}"
        found = json.loads(must("GET", f"{base}/storage/v1/b/{bucket}/o"))
        return {one["name"]: must("GET", f"{base}/{bucket}/{quote(one['name'])}") for one in found.get("items", [])}
