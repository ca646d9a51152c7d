"""The paths of a mapping in the OpenAPI document, its collection, bulk and items, and the schemas of its documents."""

import re
from collections.abc import Iterable

from pydantic_core import to_json

from gears.contract.mapping import Mapping
from service.documents.resource.bulk import NDJSON
from service.http import problems
from service.http.bodies import JSON, MERGE_PATCH
from service.http.problems import ProblemType
from service.models import Model
from service.openapi.examples import example_of
from service.openapi.fixed_parts import ID_SCHEMAS, TOKEN_EXAMPLE, WRITTEN, Json, id_parameter
from service.openapi.operation_parts import ANY, accepted, answer, body_of, headers_of, problems_of, ref

_READ = (problems.REDIS_UNAVAILABLE, problems.REDIS_REFUSED, problems.MONGO_UNAVAILABLE)

_WRITE = (
    *_READ,
    problems.FOREIGN_KEY,
    problems.REFUSED,
    problems.CAPTURE_MISSING,
    problems.BACKLOG_FULL,
    problems.REDIS_UNCHECKED,
    problems.OVERLOADED,
    problems.SHUTTING_DOWN,
    problems.NOT_CONFIRMED,
    problems.OUTCOME_UNKNOWN,
)

_BODY = (
    problems.MALFORMED_JSON,
    problems.REQUEST_TIMEOUT,
    problems.TOO_LARGE,
    problems.UNSUPPORTED_MEDIA_TYPE,
    problems.INVALID_DOCUMENT,
)

_READING = ("list", "read", "key")

_STRING: Json = {"type": "string"}

_ID = (problems.INVALID_DOCUMENT,)


def paths_of_mapping(mapping: Mapping, model: Model | None) -> Json:
    """The paths of a mapping.

    Args:
        mapping: the mapping.
        model: what its documents must look like; None for any JSON object.
    """
    name, example = _spelled(mapping.prefix), example_of(mapping, model)
    return {
        f"/{mapping.prefix}": _collection(mapping, name, example),
        f"/{mapping.prefix}/_bulk": _bulk(mapping, example),
        f"/{mapping.prefix}/{{id}}": _item(mapping, name, example),
        f"/sync/keys/{mapping.prefix}/{{id}}": _key(mapping),
    }


def schemas_of_documents(mapping: Mapping, model: Model | None) -> Json:
    """Schemas of a mapping's documents, as they are stored and as clients may send them, and what these refer to.

    Each has a dot in its name, which none of the service's own has.

    Args:
        mapping: the mapping.
        model: what its documents must look like; None for any JSON object.
    """
    name = _spelled(mapping.prefix)
    if model is None:
        stored: Json = {"type": "object", "properties": {}, "required": [], "additionalProperties": True}
    else:
        stored = model.model_json_schema(ref_template=f"#/components/schemas/{name}.model.{{model}}")
    nested = {f"{name}.model.{inner}": schema for inner, schema in stored.pop("$defs", {}).items()}
    if model is None or mapping.id_type.name != "str":
        stored["properties"][mapping.id_field] = ID_SCHEMAS[mapping.id_type.name]
        stored["required"] = sorted({*stored.get("required", ()), mapping.id_field})
    sent = stored | {"required": [field for field in stored.get("required", []) if field != mapping.id_field]}
    return nested | {f"{name}.document": stored, f"{name}.new": sent}


def _spelled(prefix: str) -> str:
    """A prefix as the first part of its schemas' names: no two are the same, and none holds a dot."""
    return re.sub(r"[:.]|_(?=3a|2e|5f)", lambda found: f"_{ord(found[0]):x}", prefix)


def _collection(mapping: Mapping, name: str, example: Json | None) -> Json:
    document, new = ref("schemas", f"{name}.document"), ref("schemas", f"{name}.new")
    if example is not None and not mapping.id_type.makes_ids:
        example = {mapping.id_field: mapping.id_type.json(mapping.id_type.example)} | example
    page = {
        "type": "object",
        "required": ["items", "next"],
        "properties": {
            "items": {"type": "array", "items": document},
            "next": {"type": ["string", "null"], "description": "What to send as `after` for the next page."},
        },
    }
    create = _operation(
        mapping,
        "create",
        "Store a new document",
        {
            "201": answer("Stored, and in MongoDB.", document, "Location", "ETag", *WRITTEN),
            "202": accepted("Location", "ETag"),
        },
        (problems.ALREADY_EXISTS, problems.IN_PROGRESS, problems.KEY_REUSED, *_BODY, *_WRITE),
        parameters=(ref("parameters", "Prefer"), ref("parameters", "Idempotency-Key")),
        body=body_of(new, JSON, f"The document; without `{mapping.id_field}` it gets a new one.", example),
    )
    create["responses"][str(problems.NOT_CONFIRMED.status)]["headers"] |= headers_of("Location")
    return {
        "get": _operation(
            mapping,
            "list",
            "A page of the documents in MongoDB, by id",
            {"200": answer("A page.", page)},
            (problems.MONGO_UNAVAILABLE,),
            parameters=(ref("parameters", "limit"), ref("parameters", "after")),
        ),
        "post": create,
    }


def _bulk(mapping: Mapping, example: Json | None) -> Json:
    lines = [to_json(each).decode() for each in (example,) if each is not None and mapping.id_type.makes_ids]
    result = {"status": 201, "id": mapping.id_type.json(mapping.id_type.example), "token": TOKEN_EXAMPLE}
    return {
        "post": _operation(
            mapping,
            "bulk",
            "Store new documents, a line each",
            {
                "200": {
                    "description": "A `Result` a line for each line, in order, as soon as the document is in MongoDB. "
                    "A last one without an id says why no more lines were taken.",
                    "content": {NDJSON: {"schema": _STRING, "example": f"{to_json(result).decode()}\n"}},
                }
            },
            (problems.UNSUPPORTED_MEDIA_TYPE,),
            parameters=(ref("parameters", "Prefer"),),
            body={
                "required": True,
                "description": "A document a line, as in a POST of one.",
                "content": {
                    NDJSON: {"schema": _STRING, "example": "".join(f"{line}\n" for line in lines * 2)}
                    if lines
                    else {"schema": _STRING}
                },
            },
        )
    }


def _item(mapping: Mapping, name: str, example: Json | None) -> Json:
    document, new = ref("schemas", f"{name}.document"), ref("schemas", f"{name}.new")
    conditions = (ref("parameters", "If-Match"), ref("parameters", "If-None-Match"))
    write = (*conditions, ref("parameters", "Prefer"))
    both = (problems.NOT_FOUND, problems.PRECONDITION_FAILED)
    return {
        "parameters": [id_parameter(mapping.id_type)],
        "get": _operation(
            mapping,
            "read",
            "One document",
            {
                "200": answer("The document.", document, "ETag"),
                "304": {"description": "The client has it already.", "headers": headers_of("ETag")},
            },
            (*both, *_ID, *_READ),
            parameters=conditions,
        ),
        "put": _operation(
            mapping,
            "replace",
            "Store a document under this id",
            {
                "200": answer("Replaced, and in MongoDB.", document, "ETag", *WRITTEN),
                "201": answer("Created, and in MongoDB.", document, "ETag", *WRITTEN),
                "202": accepted("ETag"),
            },
            (problems.PRECONDITION_FAILED, problems.CONTENDED, *_BODY, *_ID, *_WRITE),
            parameters=write,
            body=body_of(new, JSON, f"The document; `{mapping.id_field}` may be left out.", example),
        ),
        "patch": _operation(
            mapping,
            "patch",
            "Change a document by a JSON Merge Patch (RFC 7396)",
            {
                "200": answer("Changed, and in MongoDB.", document, "ETag", *WRITTEN),
                "202": accepted("ETag"),
            },
            (*both, problems.CONTENDED, *_BODY, *_ID, *_WRITE),
            parameters=write,
            body=body_of({"type": "object"}, MERGE_PATCH, "What to change; null removes a field.", example),
        ),
        "delete": _operation(
            mapping,
            "delete",
            "Delete a document",
            {
                "204": {"description": "Deleted, in MongoDB too.", "headers": headers_of(*WRITTEN)},
                "202": accepted(),
            },
            (*both, problems.CONTENDED, *_ID, *_WRITE),
            parameters=write,
        ),
    }


def _key(mapping: Mapping) -> Json:
    return {
        "parameters": [id_parameter(mapping.id_type)],
        "get": _operation(
            mapping,
            "key",
            "Where a key stands in Redis, in MongoDB and in between",
            {"200": answer("Where it stands; nothing of it is a value of a document.", ref("schemas", "Key"))},
            (problems.NOT_FOUND, *_ID, problems.REDIS_UNAVAILABLE, problems.MONGO_UNAVAILABLE),
        ),
    }


def _operation(
    mapping: Mapping,
    verb: str,
    summary: str,
    answers: Json,
    kinds: Iterable[ProblemType],
    *,
    parameters: Iterable[Json] = (),
    body: Json | None = None,
) -> Json:
    operation: Json = {
        "operationId": f"{verb}-{mapping.prefix}",
        "summary": summary,
        "tags": [mapping.prefix],
        "parameters": list(parameters),
        "responses": answers | problems_of(*kinds, *ANY, reading=verb in _READING),
    }
    return operation | ({"requestBody": body} if body else {})
