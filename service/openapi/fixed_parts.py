"""The parts of the OpenAPI document that are the same for every mapping: headers, parameters, ids."""

from typing import Any

from gears.documents.id_types import ID_MAX_BYTES, IdType
from service.documents.idempotency import KEPT_SECONDS
from service.documents.resource.collection import DEFAULT_LIMIT, MAX_LIMIT
from service.http.prefer_header import MAX_WAIT
from service.watch.sync import DEFAULT_AUDITS, MAX_AUDITS

Json = dict[str, Any]

WRITTEN = ("Sync-Token", "Preference-Applied")
"""Headers of the answer to a write."""

TOKEN_EXAMPLE = "a1b2c3d4060a24181e400d5a3f9.1700000000000-0"

TOKEN: Json = {"type": "string", "description": "Opaque.", "examples": [TOKEN_EXAMPLE]}

EXTENDED_JSON = """Values that JSON lacks are MongoDB Extended JSON v2, relaxed: a date is
`{"$date": "2020-01-02T03:04:05.678Z"}`, an ObjectId `{"$oid": "5f0c5f5b8f1c2b0001a0b0c1"}`, a decimal
`{"$numberDecimal": "10.50"}`, a UUID `{"$uuid": "3b241101-e2bb-4255-8caf-4136c566a962"}`. An object that isn't written
exactly so is an object."""

ID_SCHEMAS: dict[str, Json] = {
    "str": {"type": "string", "minLength": 1, "maxLength": ID_MAX_BYTES},
    "int": {"type": "integer", "minimum": -(2**63), "maximum": 2**63 - 1},
    "oid": {
        "type": "object",
        "properties": {"$oid": {"type": "string", "pattern": "^[0-9a-f]{24}$"}},
        "required": ["$oid"],
        "additionalProperties": False,
    },
    "uuid": {
        "type": "object",
        "properties": {"$uuid": {"type": "string", "pattern": "^[0-9a-f]{8}(-[0-9a-f]{4}){3}-[0-9a-f]{12}$"}},
        "required": ["$uuid"],
        "additionalProperties": False,
    },
}
"""The ids of documents, by the type of ids."""

HEADERS: Json = {
    "ETag": {"description": "Changes whenever the document does.", "schema": {"type": "string"}},
    "Location": {"description": "Path of the document.", "schema": {"type": "string", "format": "uri-reference"}},
    "Sync-Token": {"description": "What to ask about the write by.", "schema": TOKEN},
    "Preference-Applied": {"description": "Which parts of `Prefer` were followed.", "schema": {"type": "string"}},
    "WWW-Authenticate": {"description": "What is missing (RFC 6750).", "schema": {"type": "string"}},
    "Retry-After": {"description": "Seconds.", "schema": {"type": "integer", "minimum": 0}},
}


def id_parameter(ids: IdType) -> Json:
    """The id in a path, with an example that may be tried."""
    return {
        "name": "id",
        "in": "path",
        "required": True,
        "description": f"The document's id as text, up to {ID_MAX_BYTES} bytes, percent-encoded; may hold slashes.",
        "schema": {"type": "string", "minLength": 1},
        "example": ids.example,
    }


PARAMETERS: Json = {
    "token": {
        "name": "token",
        "in": "path",
        "required": True,
        "description": "A Sync-Token that a write was answered with.",
        "schema": {"type": "string"},
    },
    "mapping": {
        "name": "mapping",
        "in": "query",
        "description": "Ask about this mapping only.",
        "schema": {"type": "string"},
    },
    "limit": {
        "name": "limit",
        "in": "query",
        "description": "Most documents on the page.",
        "schema": {"type": "integer", "minimum": 1, "maximum": MAX_LIMIT, "default": DEFAULT_LIMIT},
    },
    "audits": {
        "name": "limit",
        "in": "query",
        "description": "Most reports.",
        "schema": {"type": "integer", "minimum": 1, "maximum": MAX_AUDITS, "default": DEFAULT_AUDITS},
    },
    "after": {
        "name": "after",
        "in": "query",
        "description": "Only documents with ids above this.",
        "schema": {"type": "string"},
    },
    "If-Match": {
        "name": "If-Match",
        "in": "header",
        "description": "Only if the document has one of these entity tags; `*`: only if it exists.",
        "schema": {"type": "string"},
    },
    "If-None-Match": {
        "name": "If-None-Match",
        "in": "header",
        "description": "Only if the document has none of these entity tags; `*`: only if it doesn't exist.",
        "schema": {"type": "string"},
    },
    "Idempotency-Key": {
        "name": "Idempotency-Key",
        "in": "header",
        "description": "A string in double quotes, new for each document. What is sent again with it makes no "
        f"second document; within {KEPT_SECONDS // 3600} hours it gets the same answer.",
        "schema": {"type": "string"},
    },
    "Prefer": {
        "name": "Prefer",
        "in": "header",
        "description": f"`wait=N`: wait up to N seconds (at most {MAX_WAIT}) for MongoDB. `respond-async`: answer 202 "
        "instead of waiting longer than that; without `wait`, at once.",
        "schema": {"type": "string", "examples": ["wait=10", "respond-async", "respond-async, wait=1"]},
    },
}
