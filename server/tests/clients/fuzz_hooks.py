"""What schemathesis does to each request before it is sent: who asks, and what is really there.

In: requests that were made up from `/openapi.json`; `CUEWIRE_FUZZ`, JSON with what `fuzz.py` has made. Out: the same with the key and the token,
and mostly with ids that exist, lest all ends at a 401 or a 404. What is done to a request depends on that request alone.
"""

import json
import os
import random

import schemathesis

WORLD = json.loads(os.environ["CUEWIRE_FUZZ"])
# Of requests, so many have no token, and the wrong key; of their parts, so many are left as they were made up.
NO_TOKEN, WRONG_KEY, AS_MADE_UP = 0.02, 0.02, 0.25


@schemathesis.hook
def before_call(context, case, kwargs):
    operation = case.operation
    path, name = operation.path, operation.definition.raw.get("operationId", "").removesuffix("_of_browsers")
    dice = random.Random(json.dumps([case.method, path, case.path_parameters, case.query, case.body], default=lambda value: type(value).__name__))
    identify(case, dice)
    transcript = dice.choice(WORLD["transcripts"])
    pools = {"type": WORLD["types"], "id": WORLD["ids"], "session": [transcript["session"]], "filename": [transcript["filename"]],
             "port": WORLD["ports"], "egress_id": [transcript["egress_id"]], "name": WORLD["storages"] if "storage" in path else [*WORLD["types"], *WORLD["ids"]]}
    if name == "delete_transcription":
        pools |= {"type": [transcript["type"]], "id": [transcript["id"]]}
    if name in ("close_rtp", "send_closed_caption"):
        pools |= {"type": WORLD["said"][:1], "id": WORLD["said"][1:]}
    # All parts of a path, or none: half of an id leads nowhere.
    if case.path_parameters and dice.random() > AS_MADE_UP:
        case.path_parameters = {part: dice.choice(pools[part]) for part in case.path_parameters}
    if name in ("download_transcript", "probe_transcript") and dice.random() > AS_MADE_UP:
        case.query |= {"expires": transcript["expires"], "signature": transcript["signature"]}
    if name == "query_members":
        case.body = filled(case.body, dice, {"type": dice.choice(pools["type"]), "id": dice.choice(pools["id"])})
    if name == "get_or_create_call" and dice.random() > AS_MADE_UP:
        data = case.body.get("data") if isinstance(case.body, dict) else None
        case.body = {**(case.body if isinstance(case.body, dict) else {}), "data": filled(data or {}, dice, {"created_by_id": "alice"})}
    if name == "send_closed_caption":
        case.body = filled(case.body, dice, {"user_id": "alice", "speaker_id": "alice"})
    if name == "open_rtp":
        # Of made up codecs and rates hardly two go together.
        case.body = filled(case.body, dice, {"user_id": "alice", "payload_type": 0, "codec": "pcmu", "clock_rate": 8000, "channels": 1, "from": ""})
    if name == "update_users_partial" and isinstance(case.body, dict) and isinstance(case.body.get("users"), list):
        case.body["users"] = [filled(user, dice, {"id": dice.choice(WORLD["users"])}) for user in case.body["users"]]


def identify(case, dice):
    key, token = WORLD["key"], WORLD["token"]
    case.query = {**(case.query or {}), "api_key": key if dice.random() > WRONG_KEY else "another"}
    case.headers = dict(case.headers or {})
    case.headers.pop("Authorization", None)
    if dice.random() > NO_TOKEN:
        case.headers["Authorization"] = token
    if "user_id" in case.query and dice.random() > AS_MADE_UP:
        case.query["user_id"] = "alice"
    if "connection_id" in case.query and dice.random() > AS_MADE_UP:
        case.query["connection_id"] = WORLD["connection"]


def filled(value, dice, fields):
    return {**value, **fields} if isinstance(value, dict) and dice.random() > AS_MADE_UP else value
