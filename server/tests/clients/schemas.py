#!/usr/bin/env python3
"""JSON Schemas of what the clients of the hosted service expect, made from their own models.

    schemas.py > schemas.json

In: the installed package `getstream`, whose models are dataclasses. Out: one JSON object,
`{"responses": {operation: schema}, "events": {type: schema}, "$defs": {class: schema}}` (draft 2020-12). A field is required
where its class has no default for it. Times are marked `"x-time": true`: integers of nanoseconds for server SDKs, RFC 3339 for
browsers, so that one schema checks both renderings.
"""

import dataclasses
import json
import sys
import types
import typing
from datetime import datetime

from getstream import models

RESPONSES = {
    "get_or_create_call": "GetOrCreateCallResponse",
    "get_call": "GetCallResponse",
    "update_call": "UpdateCallResponse",
    "delete_call": "DeleteCallResponse",
    "end_call": "EndCallResponse",
    "query_calls": "QueryCallsResponse",
    "query_call_members": "QueryCallMembersResponse",
    "update_call_members": "UpdateCallMembersResponse",
    "update_user_permissions": "UpdateUserPermissionsResponse",
    "start_transcription": "StartTranscriptionResponse",
    "stop_transcription": "StopTranscriptionResponse",
    "start_closed_captions": "StartClosedCaptionsResponse",
    "stop_closed_captions": "StopClosedCaptionsResponse",
    "send_closed_caption": "SendClosedCaptionResponse",
    "list_transcriptions": "ListTranscriptionsResponse",
    "delete_transcription": "DeleteTranscriptionResponse",
    "list_call_types": "ListCallTypeResponse",
    "create_call_type": "CreateCallTypeResponse",
    "get_call_type": "GetCallTypeResponse",
    "update_call_type": "UpdateCallTypeResponse",
    "delete_call_type": "Response",
    "update_users": "UpdateUsersResponse",
    "query_users": "QueryUsersResponse",
    "me": "OwnUserResponse",
    "list_roles": "ListRolesResponse",
    "create_role": "CreateRoleResponse",
    "list_permissions": "ListPermissionsResponse",
    "get_app": "GetApplicationResponse",
    "list_external_storage": "ListExternalStorageResponse",
    "create_external_storage": "CreateExternalStorageResponse",
    "update_external_storage": "UpdateExternalStorageResponse",
    "delete_external_storage": "DeleteExternalStorageResponse",
    "check_external_storage": "CheckExternalStorageResponse",
    "check_sqs": "CheckSQSResponse",
}
EVENTS = {
    "call.created": "CallCreatedEvent",
    "call.updated": "CallUpdatedEvent",
    "call.ended": "CallEndedEvent",
    "call.deleted": "CallDeletedEvent",
    "call.session_started": "CallSessionStartedEvent",
    "call.session_ended": "CallSessionEndedEvent",
    "call.session_participant_joined": "CallSessionParticipantJoinedEvent",
    "call.session_participant_left": "CallSessionParticipantLeftEvent",
    "call.member_added": "CallMemberAddedEvent",
    "call.member_updated": "CallMemberUpdatedEvent",
    "call.member_removed": "CallMemberRemovedEvent",
    "call.permissions_updated": "UpdatedCallPermissionsEvent",
    "call.transcription_started": "CallTranscriptionStartedEvent",
    "call.transcription_stopped": "CallTranscriptionStoppedEvent",
    "call.transcription_ready": "CallTranscriptionReadyEvent",
    "call.transcription_failed": "CallTranscriptionFailedEvent",
    "call.closed_captions_started": "CallClosedCaptionsStartedEvent",
    "call.closed_captions_stopped": "CallClosedCaptionsStoppedEvent",
    "call.closed_captions_failed": "CallClosedCaptionsFailedEvent",
    "call.closed_caption": "ClosedCaptionEvent",
}
PLAIN = {str: "string", bool: "boolean", int: "integer", float: "number"}


class Schemas:
    def __init__(self):
        self.defs = {}

    def of_class(self, cls):
        if cls.__name__ not in self.defs:
            # Before its fields, since models refer to each other in circles.
            self.defs[cls.__name__] = schema = {"type": "object", "properties": {}, "required": []}
            hints = typing.get_type_hints(cls, vars(models))
            for field in dataclasses.fields(cls):
                name = field.metadata.get("dataclasses_json", {}).get("letter_case", lambda _: field.name)(field.name)
                schema["properties"][name] = self.of(hints[field.name])
                has_default = (field.default, field.default_factory) != (dataclasses.MISSING, dataclasses.MISSING)
                if not has_default:
                    schema["required"].append(name)
        return {"$ref": f"#/$defs/{cls.__name__}"}

    def of(self, hint):
        origin, args = typing.get_origin(hint), typing.get_args(hint)
        if origin in (typing.Union, types.UnionType):
            some = [arg for arg in args if arg is not type(None)]
            options = [self.of(arg) for arg in some] + ([{"type": "null"}] if len(some) < len(args) else [])
            return options[0] if len(options) == 1 else {"anyOf": options}
        if origin is list:
            return {"type": "array", "items": self.of(args[0])}
        if origin is dict:
            return {"type": "object", "additionalProperties": self.of(args[1])}
        if hasattr(hint, "__supertype__"):
            return self.of(hint.__supertype__)
        if hint is datetime:
            return {"type": ["integer", "string"], "x-time": True}
        if dataclasses.is_dataclass(hint):
            return self.of_class(hint)
        return {"type": PLAIN[hint]} if hint in PLAIN else {}

    def all(self, names):
        missing = [name for name in names.values() if not hasattr(models, name)]
        if missing:
            sys.exit(f"the installed getstream has no {', '.join(missing)}")
        return {key: self.of_class(getattr(models, name)) for key, name in names.items()}


if __name__ == "__main__":
    schemas = Schemas()
    made = {"responses": schemas.all(RESPONSES), "events": schemas.all(EVENTS), "$defs": schemas.defs}
    json.dump(made, sys.stdout, indent=1)
