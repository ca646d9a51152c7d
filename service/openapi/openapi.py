"""The OpenAPI 3.1 document of an app: its mappings with their models, and the service's own resources."""

import re
from collections.abc import Iterable, Mapping
from importlib.metadata import PackageNotFoundError, version
from typing import Any

from pydantic_core import to_json

from gears.contract.mapping import Mapping as KeyMapping
from service.auth.authorize import needed_scope
from service.documents.bulk import NDJSON
from service.http import problems
from service.http.bodies import JSON, MERGE_PATCH
from service.http.problems import MEDIA_TYPE, ProblemType
from service.models import Model
from service.openapi.examples import example_of
from service.openapi.fixed_parts import (
    EXTENDED_JSON,
    HEADERS,
    ID_SCHEMAS,
    PARAMETERS,
    SCHEMAS,
    TOKEN_EXAMPLE,
    WRITTEN,
    Json,
    id_parameter,
)

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

_READING = ("list", "read")

_STRING: Json = {"type": "string"}

_ID = (problems.INVALID_DOCUMENT,)

_ANY = (problems.BAD_REQUEST, problems.INTERNAL)


def openapi(mappings: Iterable[KeyMapping], models: Mapping[str, Model | None], *, secured: bool = False) -> Json:
    """The document, as a JSON object.

    Args:
        mappings: the mappings served.
        models: the model of each by its prefix; None for any JSON object.
        secured: whether tokens are needed.
    """
    schemas = dict(SCHEMAS)
    paths: Json = {}
    for mapping in mappings:
        model = models[mapping.prefix]
        name, example = _spelled(mapping.prefix), example_of(mapping, model)
        schemas |= _document_schemas(name, mapping, model)
        paths[f"/{mapping.prefix}"] = _collection(mapping, name, example)
        paths[f"/{mapping.prefix}/_bulk"] = _bulk(mapping, example)
        paths[f"/{mapping.prefix}/{{id}}"] = _item(mapping, name, example)
    paths |= _own_paths()
    components: Json = {"schemas": schemas, "parameters": PARAMETERS, "headers": HEADERS}
    if secured:
        components["securitySchemes"] = {"token": {"type": "http", "scheme": "bearer"}}
        _secure(paths)
    return {
        "openapi": "3.1.0",
        "info": {
            "title": "Writethrough",
            "version": _version(),
            "description": f"Documents in Redis, acknowledged by MongoDB.\n\n{EXTENDED_JSON}",
        },
        "paths": paths,
        "components": components,
    }


def _secure(paths: Json) -> None:
    """Say of each operation which scope it needs."""
    for path, item in paths.items():
        for method in item.keys() & {"get", "post", "put", "patch", "delete"}:
            scope = needed_scope(method.upper(), path)
            if scope is not None:
                item[method]["security"] = [{"token": [scope]}]
                item[method]["responses"] |= _problems(problems.UNAUTHORIZED, problems.FORBIDDEN)


def _spelled(prefix: str) -> str:
    """A prefix as the first part of its schemas' names: no two are the same, and none holds a dot."""
    return re.sub(r"[:.]|_(?=3a|2e|5f)", lambda found: f"_{ord(found[0]):x}", prefix)


def _document_schemas(name: str, mapping: KeyMapping, model: Model | None) -> Json:
    """Schemas of a mapping's documents, as they are stored and as clients may send them, and what these refer to.

    Each has a dot in its name, which none of the service's own has.
    """
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


def _collection(mapping: KeyMapping, name: str, example: Json | None) -> Json:
    document, new = _ref("schemas", f"{name}.document"), _ref("schemas", f"{name}.new")
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
            "201": _answer("Stored, and in MongoDB.", document, "Location", "ETag", *WRITTEN),
            "202": _accepted("Location", "ETag"),
        },
        (problems.ALREADY_EXISTS, problems.IN_PROGRESS, problems.KEY_REUSED, *_BODY, *_WRITE),
        parameters=(_ref("parameters", "Prefer"), _ref("parameters", "Idempotency-Key")),
        body=_body(new, JSON, f"The document; without `{mapping.id_field}` it gets a new one.", example),
    )
    create["responses"][str(problems.NOT_CONFIRMED.status)]["headers"] |= _headers("Location")
    return {
        "get": _operation(
            mapping,
            "list",
            "A page of the documents in MongoDB, by id",
            {"200": _answer("A page.", page)},
            (problems.MONGO_UNAVAILABLE,),
            parameters=(_ref("parameters", "limit"), _ref("parameters", "after")),
        ),
        "post": create,
    }


def _bulk(mapping: KeyMapping, example: Json | None) -> Json:
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
            parameters=(_ref("parameters", "Prefer"),),
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


def _item(mapping: KeyMapping, name: str, example: Json | None) -> Json:
    document, new = _ref("schemas", f"{name}.document"), _ref("schemas", f"{name}.new")
    conditions = (_ref("parameters", "If-Match"), _ref("parameters", "If-None-Match"))
    write = (*conditions, _ref("parameters", "Prefer"))
    both = (problems.NOT_FOUND, problems.PRECONDITION_FAILED)
    return {
        "parameters": [id_parameter(mapping.id_type)],
        "get": _operation(
            mapping,
            "read",
            "One document",
            {
                "200": _answer("The document.", document, "ETag"),
                "304": {"description": "The client has it already.", "headers": _headers("ETag")},
            },
            (*both, *_ID, *_READ),
            parameters=conditions,
        ),
        "put": _operation(
            mapping,
            "replace",
            "Store a document under this id",
            {
                "200": _answer("Replaced, and in MongoDB.", document, "ETag", *WRITTEN),
                "201": _answer("Created, and in MongoDB.", document, "ETag", *WRITTEN),
                "202": _accepted("ETag"),
            },
            (problems.PRECONDITION_FAILED, problems.CONTENDED, *_BODY, *_ID, *_WRITE),
            parameters=write,
            body=_body(new, JSON, f"The document; `{mapping.id_field}` may be left out.", example),
        ),
        "patch": _operation(
            mapping,
            "patch",
            "Change a document by a JSON Merge Patch (RFC 7396)",
            {
                "200": _answer("Changed, and in MongoDB.", document, "ETag", *WRITTEN),
                "202": _accepted("ETag"),
            },
            (*both, problems.CONTENDED, *_BODY, *_ID, *_WRITE),
            parameters=write,
            body=_body({"type": "object"}, MERGE_PATCH, "What to change; null removes a field.", example),
        ),
        "delete": _operation(
            mapping,
            "delete",
            "Delete a document",
            {
                "204": {"description": "Deleted, in MongoDB too.", "headers": _headers(*WRITTEN)},
                "202": _accepted(),
            },
            (*both, problems.CONTENDED, *_ID, *_WRITE),
            parameters=write,
        ),
    }


def _operation(
    mapping: KeyMapping,
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
        "responses": answers | _problems(*kinds, *_ANY, reading=verb in _READING),
    }
    return operation | ({"requestBody": body} if body else {})


def _problems(*kinds: ProblemType, reading: bool = False) -> Json:
    """An answer for each status, telling which types of problem it may be."""
    answers: Json = {}
    for status in sorted({kind.status for kind in kinds}):
        here = dict.fromkeys(kind for kind in kinds if kind.status == status)
        headers = ["Retry-After"] if any(kind.retry_after for kind in here) else []
        headers += ["WWW-Authenticate"] if status in (401, 403) else []
        headers += ["Sync-Token"] if set(here) & {problems.REFUSED, problems.NOT_CONFIRMED} else []
        answers[str(status)] = {
            "description": "\n".join(
                f"- `{kind.uri}`: {(kind.to_readers if reading else kind).title}." for kind in here
            ),
            "headers": _headers(*headers),
            "content": {MEDIA_TYPE: {"schema": _ref("schemas", "Problem")}},
        }
    return answers


def _answer(description: str, schema: Json, *headers: str) -> Json:
    return {
        "description": description,
        "headers": _headers(*headers),
        "content": {"application/json": {"schema": schema}},
    }


def _accepted(*headers: str) -> Json:
    description = "Written to Redis and queued; the client asked not to wait for MongoDB."
    return _answer(description, _ref("schemas", "Accepted"), *headers, *WRITTEN)


def _body(schema: Json, media_types: Iterable[str], description: str, example: Any = None) -> Json:
    shown = {} if example is None else {"example": example}
    content = {media_type: {"schema": schema} | shown for media_type in media_types}
    return {"required": True, "description": description, "content": content}


def _headers(*names: str) -> Json:
    return {name: _ref("headers", name) for name in names}


def _ref(kind: str, name: str) -> Json:
    return {"$ref": f"#/components/{kind}/{name}"}


def _own_paths() -> Json:
    def get(name: str, summary: str, answers: Json, *kinds: ProblemType, parameters: Iterable[str] = ()) -> Json:
        return {
            "get": {
                "operationId": name,
                "summary": summary,
                "tags": ["service"],
                "parameters": [_ref("parameters", parameter) for parameter in parameters],
                "responses": answers | _problems(*kinds, *_ANY, reading=True),
            }
        }

    def other(media_type: str) -> Json:
        return {"200": {"description": "It.", "content": {media_type: {"schema": {"type": "string"}}}}}

    standing = (problems.NOT_FOUND, problems.REDIS_UNAVAILABLE, problems.MONGO_UNAVAILABLE)
    return {
        "/sync": get("sync", "How far each mapping is committed", {"200": _answer("So far.", _ref("schemas", "Sync"))}),
        "/sync/audits": get(
            "audits",
            "What the latest audits found, the newest first",
            {"200": _answer("The reports.", _ref("schemas", "Audits"))},
            problems.NOT_FOUND,
            problems.MONGO_UNAVAILABLE,
            parameters=("mapping", "audits"),
        ),
        "/sync/{token}": get(
            "sync-token",
            "Whether a write is committed",
            {"200": _answer("Known.", _ref("schemas", "Standing"))},
            *standing,
            parameters=("token", "mapping"),
        ),
        "/healthz": get("health", "Whether the process answers", {"200": _answer("It does.", {"type": "object"})}),
        "/readyz": get(
            "ready",
            "Whether it can do its work",
            {"200": _answer("It can.", _ref("schemas", "Ready"))},
            problems.NOT_READY,
        ),
        "/metrics": get("metrics", "Metrics for Prometheus", other("text/plain")),
        "/openapi.json": get("openapi", "This document", {"200": _answer("It.", {"type": "object"})}),
        "/docs": get("docs", "This document, to be read", other("text/html")),
    }


def _version() -> str:
    try:
        return version("writethrough")
    except PackageNotFoundError:
        return "0"
