#!/usr/bin/env python3
"""The service without a client: what `curl` and the like send.

In: see `checks.py`. Out: a line a check; exits with 1 where one failed.
"""

import json
import os
import urllib.error
import urllib.request
from urllib.parse import urlencode, urlsplit

from checks import API_KEY, BASE, STAMP, Recorder, Unexpected, run, speak, token, until, user_token

record = Recorder("plain")
SERVER = token({"server": True})
# In the order in which the hosted service's own documents have them.
ERROR_FIELDS = {"code", "message", "StatusCode", "duration", "more_info", "details"}


def send(method, path, body=None, as_token=SERVER, query=None, headers=None, content_type=None):
    """The answer's status, its headers and its JSON. `body` as bytes is sent as it is."""
    query = {"api_key": API_KEY, **(query or {})}
    data = json.dumps(body).encode() if body is not None and not isinstance(body, bytes) else body
    url = f"{BASE}{path}?{urlencode(query)}"
    request = urllib.request.Request(url, data=data, method=method, headers=headers or {})
    if as_token:
        request.add_header("Authorization", as_token)
        request.add_header("stream-auth-type", "jwt")
    if content_type is not None:
        request.add_header("Content-Type", content_type)
    elif data is not None:
        request.add_header("Content-Type", "application/json")
    try:
        answer = urllib.request.urlopen(request, timeout=10)
    except urllib.error.HTTPError as error:
        answer = error
    raw = answer.read()
    kind = answer.headers.get("content-type", "")
    try:
        value = json.loads(raw) if raw else None
    except ValueError:
        raise Unexpected(f"{method} {path}: expected JSON, got {answer.status} {kind} {raw[:200]!r}") from None
    status = answer.status
    record(kind="answer", method=method, path=urlsplit(url).path, status=status, content_type=kind, body=value)
    return answer.status, answer.headers, value


def curl(method, path, body=None, **options):
    return send(method, path, body, **options)[::2]


def refused(check, what, status, code, answer):
    got, body = answer
    check.equal(what, (status, code), (got, body.get("code") if isinstance(body, dict) else body))
    check.equal(f"{what}: the whole of an error", (ERROR_FIELDS, status), (ERROR_FIELDS & set(body), body["StatusCode"]))
    return body["message"]


def too_large(check, what, *request, **how):
    """It is refused, before the whole of it is sent or behind that."""
    try:
        status, body = curl(*request, **how)
    except (ConnectionError, urllib.error.URLError):
        return check.ok(f"{what} is cut off")
    check.that(f"{what} is refused", 400 <= status < 500 and ERROR_FIELDS <= set(body), (status, body))


def new_call(name, call_type="default", **data):
    call_id = f"plain-{name}-{STAMP}"
    path = f"/api/v2/video/call/{call_type}/{call_id}"
    status, body = curl("POST", path, {"data": {"created_by_id": f"{call_id}-host", **data}})
    if status not in (200, 201):
        raise Unexpected(f"POST {path}: expected a call, got {status} {body}")
    return call_id, path


def bodies(check):
    _, path = new_call("bodies")
    for what, body, content_type in [
        ("no body and no content type", None, None),
        ("an empty body of JSON", b"", "application/json"),
        ("an empty form", b"", "application/x-www-form-urlencoded"),
        ("an empty object", b"{}", "application/json"),
        ("fields that nobody knows", b'{"audio_only":true,"quality":{"a":[1]}}', "application/json"),
        ("an object without a content type", b'{"language":"fr"}', ""),
    ]:
        status, answer = curl("POST", f"{path}/start_transcription", body, content_type=content_type)
        check.equal(f"start_transcription with {what}", True, status in (200, 201) and "duration" in answer)
        status, answer = curl("POST", f"{path}/stop_transcription", body if body != b'{"language":"fr"}' else b"{}", content_type=content_type)
        check.equal(f"stop_transcription with {what}", True, status in (200, 201) and "duration" in answer)
    for what, body in [("no JSON", b"{"), ("a list", b"[]"), ("a number for a text", b'{"language":7}')]:
        refused(check, f"a body that is {what}", 400, 4, curl("POST", f"{path}/start_transcription", body))
    too_large(check, "a body of 4 MiB", "POST", f"{path}/start_transcription", b'{"language":"' + b"x" * (4 << 20) + b'"}')


def rtp(check):
    call_id, path = new_call("rtp")
    asked = {"user_id": f"{call_id}-host", "payload_type": 97, "codec": "opus", "clock_rate": 48_000, "channels": 2}
    status, opened = curl("POST", f"{path}/rtp", asked)
    check.equal("a port for RTP", (201, "opus", 97), (status, opened["codec"], opened["payload_type"]))
    check.equal("and the one behind it for RTCP", opened["port"] + 1, opened["rtcp_port"])
    check.equal("it is given back", 200, curl("DELETE", f"{path}/rtp/{opened['port']}")[0])
    refused(check, "giving it back again", 404, 16, curl("DELETE", f"{path}/rtp/{opened['port']}"))
    refused(check, "a format that there is not", 400, 4, curl("POST", f"{path}/rtp", {**asked, "clock_rate": 44_100}))
    refused(check, "a port for another", 401, 5, curl("POST", f"{path}/rtp", asked, as_token=user_token("plain-nobody")))


def settings(check):
    name = f"plain-type-{STAMP}"
    call = {"transcription": {"language": "fr"}, "session": {"inactivity_timeout_seconds": 5}}
    status, made = curl("POST", "/api/v2/video/calltypes", {"name": name, "settings": call})
    check.equal("a call type is made", (201, name, "fr"), (status, made["name"], made["settings"]["transcription"]["language"]))
    path = f"/api/v2/video/calltypes/{name}"
    status, put = curl("PUT", path, {"settings": {"transcription": {"mode": "auto-on", "quality": "x"}}})
    expected = (200, "auto-on", "fr", 5)
    wanted = put["settings"]["transcription"], put["settings"]["session"]["inactivity_timeout_seconds"]
    check.equal("PUT of it changes what it says", expected, (status, wanted[0]["mode"], wanted[0]["language"], wanted[1]))
    grants = {"user": ["read-call"], "auditor": ["ListTranscriptions"]}
    status, put = curl("PUT", path, {"grants": grants})
    check.equal("its grants, in either spelling", ["list-transcriptions"], put["grants"]["auditor"])
    check.equal("those of roles that it leaves out stay", True, "end-call" in put["grants"]["host"])

    call_id, path_of_call = new_call("settings", name)
    host = f"{call_id}-host"
    override = {"settings_override": {"transcription": {"language": "ru"}}, "custom": {"a": 1}}
    status, patched = curl("PATCH", path_of_call, override)
    now = patched["call"]["settings"]["transcription"]
    check.equal("PATCH of a call", (200, "ru", "auto-on", {"a": 1}), (status, now["language"], now["mode"], patched["call"]["custom"]))
    status, patched = curl("PATCH", path_of_call, {"custom": {"b": 2}})
    kept = patched["call"]["settings"]["transcription"]["language"]
    check.equal("what it leaves out stays", ("ru", {"b": 2}), (kept, patched["call"]["custom"]))
    message = refused(check, "PATCH with a value out of its range", 400, 4, curl(
        "PATCH", path_of_call, {"settings_override": {"transcription": {"speech_segment_config": {"silence_duration_ms": 2001}}}}))
    check.equal("says which", True, all(part in message for part in ("silence_duration_ms", "2001", "300", "2000")))
    check.equal("PATCH by its host", 200, curl("PATCH", path_of_call, {"custom": {}}, as_token=user_token(host))[0])
    refused(check, "PATCH by somebody", 403, 17, curl("PATCH", path_of_call, {"custom": {}}, as_token=user_token("plain-nobody")))
    refused(check, "PUT of a call type by a user", 403, 17, curl("PUT", path, {"grants": {}}, as_token=user_token(host)))
    refused(check, "DELETE of it by a user", 403, 17, curl("DELETE", path, as_token=user_token(host)))
    status, deleted = curl("DELETE", path)
    check.that("DELETE of it by a server is an answer", status == 200 and "duration" in deleted or 400 <= status < 500, (status, deleted))


def transcripts(check):
    call_id, path = new_call("transcripts", settings_override={"session": {"inactivity_timeout_seconds": 1}})
    user = f"{call_id}-host"
    # Both families, once each.
    for number, prefix in enumerate(["/video/call", "/api/v2/video/call"]):
        curl("POST", f"{path}/start_transcription")
        speak("default", call_id, user, "short")
        listed = lambda: curl("GET", f"{path}/transcriptions")[1]["transcriptions"]
        one = until("a transcript", lambda: listed())[0]
        check.equal("its times are integers of nanoseconds", [int, int], [type(one["start_time"]), type(one["end_time"])])
        browsers = curl("GET", f"/video/call/default/{call_id}/transcriptions")[1]["transcriptions"][0]
        check.equal("to browsers they are texts", [str, str], [type(browsers["start_time"]), type(browsers["end_time"])])
        with urllib.request.urlopen(one["url"]) as file:
            text = json.loads(file.read())["text"]
        check.equal("what was said", "The number is not answering.", text)
        place = f"{prefix}/default/{call_id}/{one['session_id']}/transcriptions/{one['filename']}"
        refused(check, f"DELETE {prefix}/… by a user", 403, 17, curl("DELETE", place, as_token=user_token(user)))
        status, deleted = curl("DELETE", place)
        check.equal(f"DELETE {prefix}/… with a server's token", (200, True), (status, "duration" in deleted))
        refused(check, f"DELETE {prefix}/… again", 404, 16, curl("DELETE", place))
        check.equal("then there is none", [], listed())


def paths(check):
    call_id, path = new_call("paths")
    for what, written in [
        ("two slashes", f"/api/v2//video/call//default/{call_id}"),
        ("parts in percents", f"/api/v2/video/call/%64efault/{call_id.replace('-', '%2D')}"),
        ("the browser's family", f"/video/call/default/{call_id}"),
        ("both", f"/video//call/default/{call_id.replace('-', '%2d')}"),
    ]:
        status, body = curl("GET", written)
        check.equal(f"a path with {what}", (200, f"default:{call_id}"), (status, body.get("call", body).get("cid")))
    times = [curl("GET", written)[1]["call"]["created_at"] for written in (path, f"/video/call/default/{call_id}")]
    check.equal("times of either family", [int, str], [type(time) for time in times])
    for what, method, written, status, code in [
        ("nothing is there", "GET", "/api/v2/video/nothing", 404, 16),
        ("a method that it does not have", "PUT", path, None, None),
        ("the root", "GET", "/", None, None),
        ("a page", "GET", "/index.html", None, None),
        ("a call without an id", "GET", "/api/v2/video/call/default", None, None),
        ("an id of 65", "POST", f"/api/v2/video/call/default/{'x' * 65}", 400, 4),
        ("an id with a space", "POST", "/api/v2/video/call/default/a%20b", 400, 4),
        ("an id that is no text", "POST", "/api/v2/video/call/default/%ff", None, None),
        ("a way up", "GET", "/transcripts/..%2f..%2fetc%2fpasswd", None, None),
        ("connect without an upgrade", "GET", "/video/connect", None, None),
        ("audio without an upgrade", "GET", f"/video/call/default/{call_id}/audio", None, None),
    ]:
        got, body = curl(method, written)
        is_error = 400 <= got < 500 and isinstance(body, dict) and ERROR_FIELDS <= set(body)
        check.that(f"{what}: a 4xx of the clients' format", is_error and status in (None, got) and code in (None, body["code"]), (got, body))
    for path_of in ("/healthz", "/readyz"):
        with urllib.request.urlopen(BASE + path_of) as answer:
            check.equal(path_of, 200, answer.status)


def keys_and_tokens(check):
    _, path = new_call("tokens")
    get = lambda **how: curl("GET", path, **how)
    refused(check, "no token", 401, 5, get(as_token=None))
    refused(check, "Bearer before the token", 401, 5, get(as_token=f"Bearer {SERVER}"))
    refused(check, "no API key", 401, 2, get(query={"api_key": ""}))
    refused(check, "an anonymous one", 401, 5, get(as_token=None, headers={"stream-auth-type": "anonymous"}))
    check.equal("a server's token of either client", [200, 200], [get(as_token=token(claims))[0] for claims in ({}, {"server": True})])
    refused(check, "a user_id that is another's", 401, 5, get(as_token=user_token("plain-a"), query={"user_id": "plain-b"}))
    report = {"events": [{"stage": "CoordinatorWS"}]}
    status, body = curl("POST", "/video/call_client_event", report, as_token=None, headers={"stream-auth-type": "anonymous"})
    check.equal("a report without a token", (201, True), (status, "duration" in body))
    large = {"events": [{"stage": "x" * (2 << 20)}]}
    anonymous = {"as_token": None, "headers": {"stream-auth-type": "anonymous"}}
    too_large(check, "a report of 2 MiB", "POST", "/video/call_client_event", large, **anonymous)


def cross_origin(check):
    origin = f"http://127.0.0.1:{os.environ['CLIENTS_PAGE_PORT']}"
    wanted = {"authorization", "content-type", "stream-auth-type", "x-client-request-id", "x-stream-client"}
    for method in ("GET", "POST", "PATCH", "PUT", "DELETE"):
        request = urllib.request.Request(f"{BASE}/video/call/default/x", method="OPTIONS", headers={
            "Origin": origin, "Access-Control-Request-Method": method, "Access-Control-Request-Headers": ",".join(sorted(wanted)),
        })
        with urllib.request.urlopen(request) as answer:
            headers = answer.headers
        listed = lambda name: {one.strip() for one in headers.get(f"access-control-allow-{name}", "").split(",")}
        allowed = {name.lower() for name in listed("headers")}
        check.equal(f"a preflight of {method}", (True, True, True),
                    (wanted <= allowed, method in listed("methods"), headers["access-control-allow-origin"] in (origin, "*")))
        check.equal("lists what it allows", False, "*" in allowed | listed("methods"))
    _, headers, _ = send("GET", "/video/call/default/nowhere", headers={"Origin": origin})
    check.equal("an error has the header too", True, headers["access-control-allow-origin"] in (origin, "*"))
    _, headers, _ = send("GET", "/video/call/default/nowhere", headers={"Origin": "http://elsewhere.example"})
    check.equal("but for no other origin", None, headers["access-control-allow-origin"])


run("plain", [bodies, rtp, settings, transcripts, paths, keys_and_tokens, cross_origin])
