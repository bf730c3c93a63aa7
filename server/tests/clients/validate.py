#!/usr/bin/env python3
"""Checks what came against the clients' own models, and against what the server says of itself.

    validate.py OPENAPI RECORDS…

In: the server's `/openapi.json`; files of JSON lines that the scripts wrote: events as they came, answers with their method, path and status.
Out: how many were checked, and what is wrong with the others; exits with 1 where anything is, or where a kind of event never came.
"""

import json
import re
import sys
from collections import Counter
from pathlib import Path

from jsonschema import Draft202012Validator, ValidationError, validators
from schemas import EVENTS, RESPONSES, Schemas

# The service's own; the clients have no models of them.
OWN_EVENTS = {"call.closed_caption_interim", "call.closed_caption_retracted"}
# Of connections: the browser client's models, in TypeScript, say this; `me` is that of all clients.
OF_CONNECTIONS = {
    "connection.ok": {"connection_id": str, "created_at": str, "me": dict},
    "connection.error": {"error": dict},
    "health.check": {"connection_id": str, "created_at": str, "custom": dict},
}
# What breaks does not break here.
NEVER = {"call.transcription_failed", "call.closed_captions_failed"}
ERROR_FIELDS = {"code": int, "message": str, "StatusCode": int, "duration": str, "more_info": str, "details": list}
RFC3339 = re.compile(r"\d{4}-\d\d-\d\dT\d\d:\d\d:\d\d(\.\d{1,9})?Z")
CALL = "/video/call/[^/]+/[^/]+"
PATHS = [
    ("POST", "/users", "update_users"),
    ("PATCH", "/users", "update_users"),
    ("GET", "/users", "query_users"),
    ("GET", "/roles", "list_roles"),
    ("POST", "/roles", "create_role"),
    ("GET", "/permissions", "list_permissions"),
    ("POST", "/video/calls", "query_calls"),
    ("POST", "/video/call/members", "query_call_members"),
    ("GET", "/app", "get_app"),
    ("POST", "/check_sqs", "check_sqs"),
    ("GET", "/external_storage", "list_external_storage"),
    ("POST", "/external_storage", "create_external_storage"),
    ("PUT", "/external_storage/[^/]+", "update_external_storage"),
    ("DELETE", "/external_storage/[^/]+", "delete_external_storage"),
    ("GET", "/external_storage/[^/]+/check", "check_external_storage"),
    ("GET", "/video/calltypes", "list_call_types"),
    ("POST", "/video/calltypes", "create_call_type"),
    ("GET", "/video/calltypes/[^/]+", "get_call_type"),
    ("PUT", "/video/calltypes/[^/]+", "update_call_type"),
    ("DELETE", "/video/calltypes/[^/]+", "delete_call_type"),
    ("POST", CALL, "get_or_create_call"),
    ("GET", CALL, "get_call"),
    ("PATCH", CALL, "update_call"),
    ("POST", f"{CALL}/delete", "delete_call"),
    ("POST", f"{CALL}/mark_ended", "end_call"),
    ("POST", f"{CALL}/members", "update_call_members"),
    ("POST", f"{CALL}/user_permissions", "update_user_permissions"),
    ("POST", f"{CALL}/closed_captions", "send_closed_caption"),
    ("GET", f"{CALL}/transcriptions", "list_transcriptions"),
    ("DELETE", f"{CALL}/[^/]+/transcriptions/[^/]+", "delete_transcription"),
]
PATHS += [("POST", f"{CALL}/{verb}_{what}", f"{verb}_{what}") for verb in ("start", "stop") for what in ("transcription", "closed_captions")]


def time_of(kind):
    """A keyword for schemas: whether a time is written as this family has it."""

    def check(_validator, is_time, instance, _schema):
        is_one = isinstance(instance, str) and RFC3339.fullmatch(instance) if kind is str else type(instance) is int
        if is_time and instance is not None and not is_one:
            yield ValidationError(f"{instance!r} is no time as {'RFC 3339' if kind is str else 'an integer of nanoseconds'}")

    return check


class Models:
    """The schemas, each made once for a family."""

    def __init__(self):
        schemas = Schemas()
        self.of = {"answer": schemas.all(RESPONSES), "event": schemas.all(EVENTS)}
        self.defs = schemas.defs
        self.made = {}

    def errors(self, what, name, kind, value):
        key = what, name, kind
        if key not in self.made:
            checker = validators.extend(Draft202012Validator, {"x-time": time_of(kind)})
            self.made[key] = checker({**self.of[what][name], "$defs": self.defs})
        for error in self.made[key].iter_errors(value):
            while error.context:
                # Of an alternative that is null what the other says.
                error = max(error.context, key=lambda one: len(one.absolute_path))
            yield f"{error.json_path}: {error.message[:200]}"


class Document:
    """What the server says that it answers."""

    def __init__(self, text):
        self.whole, self.made = json.loads(text), {}
        self.paths = [(re.compile(re.sub(r"\{[^}]*\}", "[^/]+", path)), path) for path in self.whole["paths"]]

    def errors(self, record):
        """Of an answer: its status, its type and its body."""
        path = re.sub("/+", "/", record["path"]).rstrip("/")
        operations = (self.whole["paths"][path_of].get(record["method"].lower()) for pattern, path_of in self.paths if pattern.fullmatch(path))
        operation = next(filter(None, operations), None)
        if operation is None:
            return [] if record["status"] >= 400 else ["an answer where the document has nothing"]
        response = operation["responses"].get(str(record["status"]))
        if response is None:
            return [f"the document has no status {record['status']}"]
        content = response.get("content", {}).get(record["content_type"].split(";")[0])
        if content is None:
            return [f"the document has no content of type {record['content_type']!r}"]
        key = operation["operationId"], record["status"]
        if key not in self.made:
            schema = {**content["schema"], "components": self.whole["components"]}
            self.made[key] = Draft202012Validator(schema)
        return [f"the document: {error.json_path}: {error.message[:200]}" for error in self.made[key].iter_errors(record["body"])]


def operation_of(method, path):
    path = re.sub("/+", "/", path).removeprefix("/api/v2").rstrip("/")
    return next((name for verb, pattern, name in PATHS if verb == method and re.fullmatch(pattern, path)), None)


def errors_of_connection(models, event):
    for name, kind in OF_CONNECTIONS[event["type"]].items():
        if not isinstance(event.get(name), kind):
            yield f"{name} is {event.get(name)!r}"
    if "code" in event:
        yield "a code at the top, which the client takes for another thing"
    if isinstance(event.get("created_at", ""), str) and "created_at" in event and not RFC3339.fullmatch(event["created_at"]):
        yield f"created_at is {event['created_at']}"
    if isinstance(event.get("me"), dict):
        yield from models.errors("answer", "me", str, event["me"])
    if isinstance(event.get("error"), dict):
        yield from errors_of_error({"body": event["error"], "status": event["error"].get("StatusCode")})


def errors_of_error(record):
    body = record["body"]
    if not isinstance(body, dict):
        yield f"an error that is no object: {str(body)[:200]}"
        return
    for name, kind in ERROR_FIELDS.items():
        if not isinstance(body.get(name), kind):
            yield f"an error whose {name} is {body.get(name)!r}"
    if body.get("StatusCode") != record["status"]:
        yield f"an error of {record['status']} that says {body.get('StatusCode')}"


def main(document, *files):
    document = Document(Path(document).read_text())
    models, wrong, checked, seen = Models(), Counter(), Counter(), set()
    for record in (json.loads(line) for file in files for line in Path(file).read_text().splitlines()):
        client, body = record["client"], record["body"]
        if record["kind"] == "event":
            name = body.get("type")
            seen.add(name)
            if name in OWN_EVENTS:
                continue
            if name in OF_CONNECTIONS:
                found = errors_of_connection(models, body)
            else:
                found = models.errors("event", name, str, body) if name in EVENTS else ["an event that the clients do not know"]
        else:
            kind = int if record["path"].startswith("/api/") else str
            name = f"{record['method']} {record['path']}"
            if record["status"] >= 500:
                found = [f"{record['status']}: {str(body)[:200]}"]
            elif record["status"] >= 400:
                found = errors_of_error(record)
            else:
                operation = operation_of(record["method"], record["path"])
                name = operation or name
                found = models.errors("answer", operation, kind, body) if operation else []
            if "application/json" not in record["content_type"]:
                found = [*found, f"content type {record['content_type']!r}"]
            found = [*found, *document.errors(record)]
        checked[client, record["kind"]] += 1
        # Numbers in paths of lists say nothing.
        wrong.update((client, name, re.sub(r"\[\d+\]", "[…]", error)) for error in found)
    for (client, kind), count in sorted(checked.items()):
        print(f"checked against the clients' models and the server's document: {count} {kind}s of {client}")
    for (client, name, error), count in wrong.most_common(60):
        print(f"FAIL models: {client}: {name}: {error} ({count} times)")
    missing = set(EVENTS) - NEVER - seen
    if missing:
        print(f"FAIL models: expected every kind of event; {', '.join(sorted(missing))} never came")
    sys.exit(1 if wrong or missing else 0)


if __name__ == "__main__":
    main(*sys.argv[1:])
