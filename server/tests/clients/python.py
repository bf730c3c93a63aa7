#!/usr/bin/env python3
"""PyPI `getstream`, with the server's token and with users'. Run it with `-W error::RuntimeWarning`.

Under that, each answer in which the client misses a field is an error.

In: see `checks.py`. Out: a line a check; exits with 1 where one failed.
"""

import dataclasses
import inspect
import time
import types
import typing
import urllib.error
import urllib.request
import warnings
from datetime import datetime, timedelta, timezone

import jwt
from checks import (
    API_KEY,
    BASE,
    SECRET,
    STAMP,
    Checks,
    Recorder,
    Unexpected,
    moved,
    offline,
    run,
    shown,
    speak,
    until,
)
from getstream import Stream, models
from getstream.exceptions import StreamApiException
from getstream.models import (
    CallRequest,
    CallSettingsRequest,
    ClientEvent,
    EventHook,
    MemberRequest,
    QueryUsersPayload,
    S3Request,
    SessionSettingsRequest,
    SortParamRequest,
    SpeechSegmentConfig,
    TranscriptionSettingsRequest,
    TranslationSettings,
    UpdateUserPartialRequest,
    UserRequest,
)

record = Recorder("python")


def note(answer):
    answer.read()
    kind = answer.headers.get("content-type", "")
    body = answer.json() if "json" in kind else answer.text[:300]
    request = answer.request
    record(kind="answer", method=request.method, path=request.url.path, status=answer.status_code, content_type=kind, body=body)


def client_of(**how):
    client = Stream(api_key=API_KEY, base_url=BASE, **how)
    for one in (client, client.video):
        one.client.event_hooks["response"].append(note)
    return client


server = client_of(api_secret=SECRET)


def user(user_id, **how):
    return client_of(token=server.create_token(user_id, **how))


def refused(check: Checks, what, status, code, request, message=""):
    try:
        answer = request()
    except StreamApiException as error:
        got = (error.status_code, error.code)
        if got != (status, code) or message not in error.message:
            raise Unexpected(f"{what}: expected {(status, code, message)}, got {(*got, error.message)}") from error
        check.ok(what)
        return error.message
    raise Unexpected(f"{what}: expected the refusal {(status, code)}, got {shown(answer.data)}")


def transcription(**leaves):
    return CallSettingsRequest(transcription=TranscriptionSettingsRequest(**leaves))


def quick(**leaves):
    settings = transcription(**leaves)
    settings.session = SessionSettingsRequest(inactivity_timeout_seconds=1)
    return settings


def new_call(name, call_type="default", client=server, **data):
    call = client.video.call(call_type, f"python-{name}-{STAMP}")
    host = f"{call.id}-host"
    server.upsert_users(UserRequest(id=host))
    call.get_or_create(data=CallRequest(created_by_id=host, **data))
    return call, host


def processes(call):
    now = call.get().data.call
    return {"transcription": now.transcribing, "captions": now.captioning}


def fetched(url):
    with urllib.request.urlopen(url) as file:
        return file.read().decode()


def users(check):
    ann, bob = f"python-ann-{STAMP}", f"python-bob-{STAMP}"
    made = server.upsert_users(UserRequest(id=ann, name="Ann", role="admin", custom={"team": "red"}, teams=["a"]), UserRequest(id=bob))
    got = {one: (made.data.users[one].role, made.data.users[one].name) for one in (ann, bob)}
    check.equal("users are made", {ann: ("admin", "Ann"), bob: ("user", None)}, got)
    age = datetime.now(timezone.utc) - made.data.users[ann].created_at
    check.that("just now", abs(age) < timedelta(minutes=1), age)
    partial = server.update_users_partial([UpdateUserPartialRequest(id=ann, set={"name": "Anna", "shoe": 40}, unset=["team"])])
    check.equal("and changed in part", ("Anna", {"shoe": 40}), (partial.data.users[ann].name, partial.data.users[ann].custom))
    payload = QueryUsersPayload(filter_conditions={"id": {"$in": [ann, bob]}}, sort=[SortParamRequest(field="id", direction=-1)])
    check.equal("and found", [bob, ann], [one.id for one in server.query_users(payload).data.users])
    check.equal("one by one", ann, server.create_user(name="Ann", id=ann).id)
    theirs = user(bob)
    refused(check, "a user may not give themselves a role", 403, 17, lambda: theirs.update_users({bob: UserRequest(id=bob, role="admin")}))


def call_types(check):
    role = f"python-role-{STAMP}"
    made = server.create_role(role).data.role
    check.equal("a role is made", (role, True), (made.name, made.custom))
    check.equal("and listed with those from the start", True, {role, "admin", "user"} <= {one.name for one in server.list_roles().data.roles})
    granted = {one.id for one in server.list_permissions().data.permissions}
    check.equal("what may be granted", True, {"read-call", "start-transcription-call", "list-transcriptions"} <= granted)
    name = f"python-type-{STAMP}"
    known = {"default", "audio_room", "livestream", "development"}
    check.equal("four call types are there from the start", known, known & set(server.video.list_call_types().data.call_types))
    leaves = {"mode": "auto-on", "language": "fr", "speech_segment_config": SpeechSegmentConfig(max_speech_caption_ms=6000)}
    made = server.video.create_call_type(name, settings=transcription(**leaves), grants={"user": ["read-call", "StartClosedCaptions"]}).data
    now = made.settings.transcription
    segments = now.speech_segment_config
    check.equal("one is made", (name, "auto-on", "fr", 6000, 700),
                (made.name, now.mode, now.language, segments.max_speech_caption_ms, segments.silence_duration_ms))
    check.equal("its grants", ["read-call", "start-closed-captions-call"], sorted(made.grants["user"]))
    now = server.video.update_call_type(name, settings=transcription(closed_caption_mode="disabled")).data.settings.transcription
    check.equal("it is changed leaf by leaf", ("auto-on", "disabled", "fr"), (now.mode, now.closed_caption_mode, now.language))
    got = server.video.get_call_type(name).data
    check.equal("and got as it is", now, got.settings.transcription)
    for bad, *parts in [
        ({"speech_segment_config": SpeechSegmentConfig(silence_duration_ms=2001)}, "silence_duration_ms", "2001", "300", "2000"),
        ({"speech_segment_config": SpeechSegmentConfig(max_speech_caption_ms=4999)}, "max_speech_caption_ms", "4999", "10000"),
        ({"language": "tlh"}, "language", "tlh"),
        ({"closed_caption_mode": "on"}, "closed_caption_mode", "auto-on"),
        ({"translation": TranslationSettings(enabled=True, languages=["de"])}, "languages", "English only"),
    ]:
        message = refused(check, f"{bad} makes no sense", 400, 4, lambda bad=bad: server.video.update_call_type(name, settings=transcription(**bad)))
        check.equal("the refusal says why", parts, [part for part in parts if part in message])
    theirs = user(f"python-nobody-{STAMP}")
    for what, request in [
        ("list", lambda: theirs.video.create_call_type("x")), ("change", lambda: theirs.video.update_call_type(name)),
        ("delete", lambda: theirs.video.delete_call_type(name)),
    ]:
        refused(check, f"{what} call types: a server's token only", 403, 17, request)
    server.video.delete_call_type(name)
    refused(check, "it is deleted", 404, 16, lambda: server.video.get_call_type(name))


def calls(check):
    starts_at = datetime(2027, 1, 15, 9, 0, 0, 500_000, tzinfo=timezone(timedelta(hours=1)))
    call, host = new_call("calls", members=[MemberRequest(user_id="python-ann", role="admin", custom={"seat": 1})],
                          custom={"topic": "python"}, starts_at=starts_at, team="red", settings_override=transcription(language="de"))
    got = call.get().data
    now = got.call
    check.equal("it is as it was made", ("red", {"topic": "python"}, host, starts_at, "de"),
                (now.team, now.custom, now.created_by.id, now.starts_at, now.settings.transcription.language))
    check.equal("its members", [("python-ann", "admin", {"seat": 1})], [(one.user_id, one.role, one.custom) for one in got.members])
    check.equal("the second time it was there", False, call.get_or_create(data=CallRequest(created_by_id=host)).data.created)
    updated = call.update(custom={"topic": "rain"}, settings_override=transcription(mode="disabled")).data.call
    check.equal("it is changed", ("rain", "disabled", "de"),
                (updated.custom["topic"], updated.settings.transcription.mode, updated.settings.transcription.language))
    call.update_call_members(update_members=[MemberRequest(user_id="python-bob")])
    both = ["python-ann", "python-bob"]
    found = server.video.query_call_members(id=call.id, type="default", sort=[SortParamRequest(field="user_id", direction=1)]).data
    check.equal("members are added and found", both, [one.user_id for one in found.members])
    call.update_call_members(remove_members=["python-bob"])
    found = server.video.query_call_members(id=call.id, type="default", filter_conditions={"user_id": {"$in": both}}).data
    check.equal("and removed", ["python-ann"], [one.user_id for one in found.members])
    found = server.video.query_calls(filter_conditions={"cid": {"$in": [now.cid]}}, limit=1).data
    check.equal("calls are found", [now.cid], [one.call.cid for one in found.calls])
    server.video.report_client_call_event([ClientEvent(stage="CoordinatorWS")])
    check.ok("reports are taken")
    refused(check, "a call that is not there", 404, 16, lambda: server.video.call("default", "nowhere").get())
    refused(check, "one that nobody makes", 400, 4, lambda: server.video.call("default", f"{call.id}-x").get_or_create(), "created_by_id")
    refused(check, "a user may not delete it", 403, 17, lambda: user(host).video.call("default", call.id).delete())
    call.delete()
    refused(check, "it is deleted", 404, 16, call.get)


def combinations():
    for transcribed in (False, True):
        for captioned in (False, True):
            for verb in ("start", "stop"):
                for process in ("transcription", "captions"):
                    for with_other in (False, True):
                        yield {"transcription": transcribed, "captions": captioned}, verb, process, with_other


def start_and_stop(check):
    call, host = new_call("combinations")
    make = {
        ("start", "transcription"): lambda both: call.start_transcription(enable_closed_captions=both or None),
        ("start", "captions"): lambda both: call.start_closed_captions(enable_transcription=both or None),
        ("stop", "transcription"): lambda both: call.stop_transcription(stop_closed_captions=both or None),
        ("stop", "captions"): lambda both: call.stop_closed_captions(stop_transcription=both or None),
    }
    for runs, verb, process, with_other in combinations():
        for one, is_running in processes(call).items():
            if is_running != runs[one]:
                make["start" if runs[one] else "stop", one](False)
        wanted = verb == "start"
        what = f"{verb} {process}{' and the other' if with_other else ''} while {[one for one in runs if runs[one]]} run"
        if runs[process] == wanted:
            after = runs
            refused(check, what, 400, 4, lambda: make[verb, process](with_other))
        else:
            after = {one: wanted if one == process or with_other else runs[one] for one in runs}
            make[verb, process](with_other)
            check.ok(what)
        check.equal(f"{what}: what runs then", after, processes(call))


def transcripts(check):
    call, host = new_call("transcripts", settings_override=quick())
    check.equal("none at first", [], call.list_transcriptions().data.transcriptions)
    call.start_transcription()
    speak("default", call.id, host, "talk")
    (one,) = until("a transcript", lambda: call.list_transcriptions().data.transcriptions, 30)
    text = fetched(one.url)
    first = text.split('"start_time":"')[1].split('"')[0]
    check.equal("it is what the engine says offline, byte for byte", moved(offline("talk", "en"), host, first), text)
    check.that("its times are those of the run", one.start_time < one.end_time, (one.start_time, one.end_time))
    theirs = user(host).video.call("default", call.id)
    check.equal("its users see it too", [one.filename], [seen.filename for seen in theirs.list_transcriptions().data.transcriptions])
    refused(check, "but do not delete it", 403, 17,
            lambda: user(host).video.delete_transcription("default", call.id, one.session_id, one.filename))
    refused(check, "what is not there is not deleted", 404, 16,
            lambda: server.video.delete_transcription("default", call.id, one.session_id, "none"))
    server.video.delete_transcription("default", call.id, one.session_id, one.filename)
    check.equal("it is deleted", [], call.list_transcriptions().data.transcriptions)
    try:
        fetched(one.url)
        raise Unexpected("expected that a deleted transcript cannot be fetched; it can")
    except urllib.error.HTTPError as error:
        check.equal("and cannot be fetched", 404, error.code)


def settings_at_three_levels(check):
    name = f"python-levels-{STAMP}"
    server.video.create_call_type(name, settings=transcription(language="fr"), grants={"user": ["read-call", "join-call", "send-audio"]})
    for what, language, override, request in [
        ("the type's", "fr", {}, {}), ("the call's", "en", {"language": "en"}, {}),
        ("the request's", "fr", {"language": "en"}, {"language": "fr"}),
    ]:
        call, host = new_call(f"levels-{what[4:].replace(chr(39), '')}", name, settings_override=quick(**override))
        call.start_transcription(**request)
        speak(name, call.id, host, "fr")
        (one,) = until("a transcript", lambda: call.list_transcriptions().data.transcriptions)
        text = fetched(one.url)
        first = text.split('"start_time":"')[1].split('"')[0]
        check.equal(f"{what} language: the text shows it", moved(offline("fr", language), host, first), text)


def language_while_somebody_speaks(check):
    call, host = new_call("language", settings_override=quick(language="fr"))
    call.start_transcription()

    def change():
        # It begins when somebody is there: French until 2.6 s, English from 3.6 s on.
        until("a participant", lambda: (session := call.get().data.call.session) and session.participants)
        time.sleep(1.2)
        call.update(settings_override=transcription(language="en"))

    speak("default", call.id, host, "fr-en", speed=1, meanwhile=change)
    (one,) = until("a transcript", lambda: call.list_transcriptions().data.transcriptions)
    text = fetched(one.url)
    first = text.split('"start_time":"')[1].split('"')[0]
    expected = [offline("fr-en", "fr")[0], offline("fr-en", "en")[1]]
    check.equal("French, then English: the text shows which", moved(expected, host, first), text)


def captions_from_elsewhere(check):
    call, host = new_call("elsewhere", settings_override=quick())
    caption = {"speaker_id": host, "text": "said elsewhere", "start_time": datetime(2027, 1, 15, 8, 0, 0),
               "end_time": datetime(2027, 1, 15, 10, 0, 1, tzinfo=timezone(timedelta(hours=2))), "language": "en", "service": "another"}
    refused(check, "where none run", 400, 4, lambda: call.send_closed_caption(**caption))
    call.start_closed_captions(enable_transcription=True, speech_segment_config=SpeechSegmentConfig(silence_duration_ms=500))
    call.send_closed_caption(**caption)
    call.stop_closed_captions(stop_transcription=True)
    (one,) = until("a transcript", lambda: call.list_transcriptions().data.transcriptions)
    times = '"start_time":"2027-01-15T08:00:00.000000000Z","stop_time":"2027-01-15T08:00:01.000000000Z"'
    line = '{"type":"speech",' + times + f',"speaker_id":"{host}","text":"said elsewhere"' + "}\n"
    check.equal("it is in the transcript, without a zone as UTC", line, fetched(one.url))


def permissions(check):
    call, host = new_call("permissions")
    name = f"{call.id}-user"
    server.upsert_users(UserRequest(id=name))
    theirs = user(name).video.call("default", call.id)
    mine = user(host).video.call("default", call.id)
    capabilities = theirs.get().data.own_capabilities
    check.equal("who is nobody special may not start", False, "start-transcription-call" in capabilities)
    for what, request in [
        ("start transcription", theirs.start_transcription), ("stop transcription", theirs.stop_transcription),
        ("start captions", theirs.start_closed_captions), ("stop captions", theirs.stop_closed_captions),
        ("end", theirs.end), ("change", lambda: theirs.update(custom={})),
        ("change settings", lambda: theirs.update(settings_override=transcription(language="fr"))),
        ("change members", lambda: theirs.update_call_members(remove_members=["x"])),
        ("give permissions", lambda: theirs.client.update_user_permissions("default", call.id, name, ["end-call"])),
        ("send a caption", lambda: theirs.send_closed_caption(host, "hello")),
    ]:
        refused(check, f"refused: {what}", 403, 17, request)
    server.video.update_user_permissions("default", call.id, name, grant_permissions=["StartTranscription", "stop-transcription-call"])
    theirs.start_transcription(language="fr")
    theirs.stop_transcription()
    check.ok("granted in either spelling: start and stop")
    refused(check, "but not of both", 403, 17, lambda: theirs.start_transcription(enable_closed_captions=True), "start-closed-captions-call")
    mine.client.update_user_permissions("default", call.id, name, revoke_permissions=["start-transcription-call"])
    refused(check, "revoked by the host", 403, 17, theirs.start_transcription)
    mine.start_closed_captions()
    mine.send_closed_caption(host, "hello", language="en")
    mine.stop_closed_captions()
    check.ok("the host may all of it")
    mine.end()
    refused(check, "nothing starts in a call that has ended", 400, 4, mine.start_transcription, "ended")

    admin = f"{call.id}-admin"
    server.upsert_users(UserRequest(id=admin, role="admin"))
    call, _ = new_call("roles", members=[MemberRequest(user_id=f"{call.id}-member", role="admin")])
    role_of_theirs = user(admin).video.call("default", call.id).get().data.own_capabilities
    of_member = user(f"python-permissions-{STAMP}-member").video.call("default", call.id).get().data.own_capabilities
    check.equal("roles grant: a user's, a member's", [True, True], ["end-call" in role_of_theirs, "end-call" in of_member])
    call_token = server.create_call_token(name, call_cids=[f"default:{call.id}"], role="admin")
    of_token = client_of(token=call_token).video.call("default", call.id).get().data.own_capabilities
    check.equal("and a token's", True, "end-call" in of_token)
    free, _ = new_call("free", "development")
    user(name).video.call("development", free.id).start_transcription()
    check.ok("in development everybody may")
    # What a call type grants is changed with it.
    granted = f"python-granted-{STAMP}"
    server.video.create_call_type(granted, grants={"user": ["read-call"]})
    call, _ = new_call("granted", granted)
    theirs = user(name).video.call(granted, call.id)
    refused(check, "a call type that grants nothing", 403, 17, theirs.start_closed_captions)
    server.video.update_call_type(granted, grants={"user": ["read-call", "StartClosedCaptions"]})
    theirs.start_closed_captions()
    check.ok("and that does")


def tokens(check):
    call, host = new_call("tokens")
    get = lambda token: client_of(token=token).video.call("default", call.id).get
    now = int(time.time())
    sign = lambda claims, secret=SECRET, algorithm="HS256": jwt.encode(claims, secret, algorithm=algorithm)
    for what, code, token in [
        ("expired", 40, sign({"user_id": host, "exp": now - 60})),
        ("not valid yet", 41, sign({"user_id": host, "nbf": now + 3600})),
        ("issued in the future", 42, sign({"user_id": host, "iat": now + 3600})),
        ("signed by another", 43, sign({"user_id": host}, "another secret of 32 bytes length")),
        ("signed otherwise", 5, sign({"user_id": host}, algorithm="HS512")),
        ("not signed", 5, jwt.encode({"user_id": host}, None, algorithm="none")),
        ("a server's with a role", 5, sign({"role": "admin"})),
        ("no token at all", 5, "rubbish"),
    ]:
        refused(check, f"a token: {what}", 401, code, get(token))
    short = get(server.create_token(host, expiration=2))
    short()
    time.sleep(3)
    refused(check, "one that has expired meanwhile", 401, 40, short)
    other = Stream(api_key="another", api_secret=SECRET, base_url=BASE)
    refused(check, "another API key", 401, 2, other.video.call("default", call.id).get)


SERVED = {
    "get_call", "update_call", "get_or_create_call", "send_closed_caption", "delete_call", "end_call", "update_call_members",
    "start_closed_captions", "start_transcription", "stop_closed_captions", "stop_transcription", "list_transcriptions",
    "update_user_permissions", "delete_transcription", "report_client_call_event", "query_calls", "query_call_members",
    "list_call_types", "create_call_type", "delete_call_type", "get_call_type", "update_call_type", "query_users",
    "update_users_partial", "update_users", "list_roles", "create_role", "list_permissions", "get_app", "update_app", "check_sqs",
    "list_external_storage", "create_external_storage", "update_external_storage", "delete_external_storage",
    "check_external_storage",
}


def app_and_storages(check):
    """What `delivery.py` has go somewhere, as far as the client's own models go."""
    name = f"python-storage-{STAMP}"
    hook = EventHook(id=name, hook_type="webhook", webhook_url="https://hooks.example.org/it", event_types=["call.deleted"], enabled=True)
    server.update_app(event_hooks=[hook])
    app = server.get_app().data.app
    made = next((one for one in app.event_hooks if one.id == name), None)
    check.equal("a hook is made", (hook.webhook_url, ["call.deleted"], True), made and (made.webhook_url, made.event_types, made.enabled))
    check.that("with its times", made.created_at == made.updated_at, (made.created_at, made.updated_at))
    message = refused(check, "one that leads to this machine", 400, 4,
                      lambda: server.update_app(event_hooks=[EventHook(hook_type="webhook", webhook_url="http://169.254.169.254/")]))
    check.that("the refusal says why", "169.254.169.254" in message, message)
    server.update_app(event_hooks=[])
    bucket = {"bucket": "captions", "storage_type": "s3", "path": "python"}
    def s3_at(url):
        return S3Request(s3_region="eu-west-1", s3_api_key="AKIAEXAMPLE", s3_secret="unheard of", s3_custom_endpoint_url=url)
    message = refused(check, "a storage in this machine", 400, 4,
                      lambda: server.create_external_storage(name=name, aws_s3=s3_at("http://127.0.0.1:9"), **bucket))
    check.that("the refusal says why, without the secret", "127.0.0.1" in message and "unheard" not in message, message)
    s3 = s3_at("https://storage.invalid")
    server.create_external_storage(name=name, aws_s3=s3, **bucket)
    listed = server.list_external_storage().data.external_storages[name]
    check.equal("a storage is made and listed", ("captions", "python", "s3"), (listed.bucket, listed.path, listed.type))
    server.update_external_storage(name=name, aws_s3=s3, **{**bucket, "path": "other"})
    check.equal("and changed", "other", server.list_external_storage().data.external_storages[name].path)
    message = refused(check, "a check of one that nobody reaches", 400, 4, lambda: server.check_external_storage(name))
    check.that("the refusal has no secret in it", name in message and "unheard" not in message, message)
    server.delete_external_storage(name)
    check.equal("and deleted", False, name in server.list_external_storage().data.external_storages)
    try:
        answer = server.check_sqs(sqs_url="http://127.0.0.1:9/queue", sqs_key="key", sqs_secret="unheard of").data
        check.equal("a queue in this machine is none", "error", answer.status)
    except StreamApiException as error:
        check.equal("a server without queues says so", True, error.status_code == 400 and "SQS" in str(error))


def made_up(hint):
    """Something of a type."""
    origin, args = typing.get_origin(hint), typing.get_args(hint)
    if origin in (typing.Union, types.UnionType):
        return made_up(args[0])
    if origin in (list, dict):
        return origin()
    if dataclasses.is_dataclass(hint):
        hints = typing.get_type_hints(hint, vars(models))
        required = [one for one in dataclasses.fields(hint) if one.default is dataclasses.MISSING]
        return hint(**{one.name: made_up(hints[one.name]) for one in required})
    return {str: "none", bool: True, int: 1, float: 1.0, datetime: datetime(2027, 1, 1)}.get(hint, {})


def undecorated(method):
    """The client's own function, under the decorators that hide what it takes."""
    hidden = [cell.cell_contents for cell in method.__closure__ or () if inspect.isfunction(cell.cell_contents)]
    return undecorated(hidden[0]) if hidden else method


def not_offered(check):
    count = 0
    for api in (server, server.video, server.chat, server.feeds, server.moderation):
        generated = next(one for one in type(api).__mro__ if one.__name__.endswith("RestClient"))
        for name, method in vars(generated).items():
            if name.startswith("_") or name in SERVED or not inspect.isfunction(method):
                continue
            plain = undecorated(method)
            hints = typing.get_type_hints(plain, {**vars(models), **plain.__globals__})
            required = [one for one in inspect.signature(plain).parameters.values() if one.default is one.empty and one.name != "self"]
            arguments = {one.name: made_up(hints[one.name]) for one in required}
            try:
                answer = getattr(generated, name)(api, **arguments)
                raise Unexpected(f"{name}, which the server does not have: expected a 4xx, got {shown(answer.data)}")
            except StreamApiException as error:
                if not 400 <= error.status_code < 500 or not error.code:
                    raise Unexpected(f"{name}: expected a 4xx with a code, got {error}: {error.raw_response_body[:300]}") from error
            count += 1
    check.that("the client offers a lot", count > 200, count)
    check.ok(f"{count} operations that the client offers and the server does not have are answered with a 4xx")


if not any(action == "error" and category is RuntimeWarning for action, _, category, *_ in warnings.filters):
    raise SystemExit("run this with -W error::RuntimeWarning: else missing fields are forgiven")
run("python", [
    users, call_types, calls, start_and_stop, transcripts, settings_at_three_levels, app_and_storages,
    language_while_somebody_speaks, captions_from_elsewhere, permissions, tokens, not_offered,
])
