"""The schemas of what the service itself answers."""

from typing import Any

from gears.in_mongo.reports.audit_report import AuditReport
from gears.progress.compare import Kind
from gears.progress.waiting_entries import MOST_SEARCHED
from service.auth.bearer_tokens import Scope
from service.http import problems
from service.openapi.fixed_parts import (
    TOKEN,
    Json,
)
from service.watch.readiness import OK
from service.watch.state_metrics import WORKER_STATES


def _object(required: Json, optional: Json | None = None) -> Json:
    return {"type": "object", "required": list(required), "properties": required | (optional or {})}


def _or_null(kind: str, **more: Any) -> Json:
    return {"type": [kind, "null"], **more}


_STRING: Json = {"type": "string"}
_MOMENT: Json = {"type": "string", "format": "date-time"}
_STRINGS: Json = {"type": "object", "additionalProperties": _STRING}

_WORKER = _object(
    {
        "owner": _STRING,
        "state": {"enum": list(WORKER_STATES)},
        "reason": _STRING,
        "since": {"type": "number", "description": "When this state began, in seconds of the Unix epoch."},
        "committed": {"type": "integer"},
        "refused": {"type": "integer"},
        "retries": {"type": "integer"},
    }
)

_AUDIT: Json = AuditReport.model_json_schema(mode="serialization", ref_template="#/components/schemas/{model}")

_COLLECTION = _object(
    {
        "kind": _or_null("string", description="`collection`, `view` or `timeseries`; null if not known."),
        "capped": {"type": "boolean"},
        "collation": _or_null("string", description="The locale of its default collation, which isn't used for ids."),
        "shard_key": _or_null("object", description="By what it is sharded; null if it isn't, or that isn't known."),
        "validator": _or_null("object", description="`fields` that it speaks of, `level` and `action`."),
        "unique_indexes": {
            "type": "array",
            "description": "Those that may refuse documents: all but the id's.",
            "items": _object({"name": _STRING, "fields": {"type": "array", "items": _STRING}}),
        },
        "unfit": _or_null("string", description="Why documents can't be kept in it, with the remedy."),
        "unknown": _STRINGS | {"description": "Why `options`, `indexes` or `sharding` aren't known."},
    }
)

_MAPPING = _object(
    {
        "mapping": _STRING,
        "namespace": {"type": "string", "description": "database.collection"},
        "engine": _or_null("string"),
        "capture": _or_null("object", description="What the recipe says of itself."),
        "last_entry": _or_null("string", description="Id of the newest entry on the sync stream."),
        "watermark": _or_null("string", description="Id of the last committed entry."),
        "backlog": _or_null("integer", description="Uncommitted entries."),
        "lag": _or_null("number", description="Age of the oldest uncommitted entry in seconds."),
        "worker": {"anyOf": [_WORKER, {"type": "null"}]},
        "reconciler": _or_null("object", description="What the reconciler says of itself."),
        "last_audit": {"anyOf": [{"$ref": "#/components/schemas/Audit"}, {"type": "null"}]},
        "rewinds": _or_null("object", description="How often Redis had forgotten something, and the last time."),
        "dead_letters": _or_null("integer", description="Refused states that are kept in MongoDB."),
        "collection": {"anyOf": [_COLLECTION, {"type": "null"}]},
        "errors": _STRINGS | {"description": "Why parts couldn't be had."},
    }
)

SCHEMAS: Json = {
    "Problem": _object(
        {
            "type": {"type": "string", "enum": [kind.uri for kind in problems.TYPES]},
            "title": _STRING,
            "status": {"type": "integer"},
            "detail": _STRING,
        },
        {
            "errors": {
                "type": "array",
                "description": "The fields that don't fit the model.",
                "items": _object({"field": _STRING, "message": _STRING}),
            },
            "token": TOKEN,
            "scope": {"enum": list(Scope), "description": "The scope that the token lacks."},
            "sync": {"type": "string", "description": "Where to ask whether the write is committed."},
            "checks": _STRINGS | {"description": f"What was checked, each `{OK}` or the reason why not."},
        },
    ),
    "Audit": {name: value for name, value in _AUDIT.items() if name != "$defs"},
    **_AUDIT["$defs"],
    "Audits": _object({"items": {"type": "array", "items": {"$ref": "#/components/schemas/Audit"}}}),
    "Accepted": _object(
        {"token": TOKEN, "sync": {"type": "string", "description": "Where to ask whether the write is committed."}}
    ),
    "Result": _object(
        {"status": {"type": "integer", "description": "What a POST of this document alone would be answered with."}},
        {
            "id": {"description": "The document's."},
            "token": TOKEN,
            "problem": {"$ref": "#/components/schemas/Problem"},
        },
    ),
    "Standing": _object(
        {
            "token": TOKEN,
            "committed": {"type": "boolean", "description": "Whether the write is committed."},
            "mappings": {
                "type": "object",
                "additionalProperties": {"enum": ["committed", "pending", "refused", "lost", "unknown"]},
            },
        }
    ),
    "Key": _object(
        {
            "mapping": _STRING,
            "id": {"type": "string", "description": "As text."},
            "key": _STRING,
            "state": {
                "enum": ["pending", *Kind, "absent", "unknown"],
                "description": "`pending`: a write waits; otherwise how the two sides compare.",
            },
            "fields": {"type": "array", "items": _STRING, "description": "Names of fields that differ, some of them."},
            "redis": _object(
                {
                    "holds": {"enum": ["document", "nothing", "another type"]},
                    "bytes": _or_null("integer", description="Of the document as JSON text."),
                    "expires_in": _or_null("number", description="Seconds; null if it has no time to live."),
                    "deleted_by": _or_null("string", description="Id of its latest delete's entry, for a minute."),
                }
            ),
            "pending": _object(
                {
                    "entries": {"type": "integer", "description": "Writes that wait, as far as they were searched."},
                    "first": _or_null("string", description="The Sync-Token of the oldest."),
                    "last": _or_null("string", description="The Sync-Token of the newest."),
                    "set_aside": {"type": "boolean", "description": "Whether MongoDB doesn't take it now."},
                    "complete": {
                        "type": "boolean",
                        "description": f"Whether all that waits was searched; the oldest {MOST_SEARCHED:,} are.",
                    },
                }
            ),
            "mongodb": {
                "anyOf": [
                    _object(
                        {
                            "version": _or_null("string", description="`<term>.<batch>`; null if not ours."),
                            "bytes": {"type": "integer", "description": "Of the document as BSON."},
                        }
                    ),
                    {"type": "null"},
                ]
            },
            "deleted": {"anyOf": [_object({"version": _STRING, "at": _MOMENT}), {"type": "null"}]},
            "last_commit": {
                "anyOf": [
                    _object({"version": _STRING, "at": {"anyOf": [_MOMENT, {"type": "null"}]}}),
                    {"type": "null"},
                ],
                "description": "`at` is null where the log doesn't reach back so far.",
            },
            "dead_letter": {
                "anyOf": [
                    _object(
                        {
                            "id": _STRING,
                            "at": _MOMENT,
                            "reason": _STRING,
                            "version": _STRING,
                            "written_since": {"type": "boolean", "description": "Whether the key was committed since."},
                        }
                    ),
                    {"type": "null"},
                ],
                "description": "The latest one of this key.",
            },
        }
    ),
    "Ready": _object({"status": {"const": "ready"}}, {"checks": _STRINGS}),
    "Sync": _object(
        {
            "mappings": {"type": "object", "additionalProperties": _MAPPING},
            "errors": _STRINGS | {"description": "Why Redis or MongoDB can't be reached."},
            "warnings": {"type": "array", "items": _STRING},
        }
    ),
}
