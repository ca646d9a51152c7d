"""What MongoDB can hold of a JSON document, and the way there and back.

Pure functions: JSON text as RedisJSON prints it on one side, BSON as MongoDB stores it on the other.
"""

from collections.abc import Iterable
from collections.abc import Mapping as Dict
from typing import Any

import bson
from bson.raw_bson import RawBSONDocument
from pydantic_core import from_json, to_json

from gears.errors import MalformedJson, Refused
from gears.mapping import Mapping

BSON_MAX_BYTES = 16 * 1024 * 1024
"""https://www.mongodb.com/docs/manual/reference/limits/#mongodb-limit-BSON-Document-Size"""

BSON_MAX_DEPTH = 100
"""https://www.mongodb.com/docs/manual/reference/limits/#mongodb-limit-Nested-Depth-for-BSON-Documents"""

INT64_MIN, INT64_MAX = -(2**63), 2**63 - 1

RESERVED = frozenset({"_id", "_sync"})

JsonObject = dict[str, Any]


def parse_json(text: bytes | str) -> Any:
    """Parse JSON text; NaN, Infinity, lone surrogates and anything but UTF-8 are no JSON.

    Raises:
        MalformedJson: it is no JSON.
        Refused: it is JSON, but too deep or with too large a number to be parsed here.
    """
    try:
        return from_json(text, allow_inf_nan=False)
    except ValueError as error:
        message = str(error)
        if message.startswith("recursion limit"):
            raise Refused(f"the document is nested deeper than {BSON_MAX_DEPTH} levels; flatten it") from None
        if message.startswith("number out of range"):
            raise Refused(f"a number has too many digits ({message}); send it as a string") from None
        raise MalformedJson(f"the document is not valid JSON: {message}") from None


def parse_object(text: bytes | str) -> JsonObject:
    """Parse the JSON text of a document, as strictly as RedisJSON and BSON need it.

    Raises:
        MalformedJson: it is no JSON.
        Refused: it is no object, or holds what MongoDB can't.
    """
    value = parse_json(text)
    if not isinstance(value, dict):
        raise Refused(f"the document must be a JSON object, not {_kind(value)}")
    check_object(value)
    return value


def check_object(document: JsonObject) -> None:
    """Raise `Refused`, naming the field, if MongoDB can't hold this document.

    Size is left to `encode`, which knows it.
    """
    for field in document:
        if field in RESERVED:
            raise Refused(f"the field name {field!r} is reserved; rename the field")
        if field.startswith("$"):
            raise Refused(f"the field name {field!r} starts with '$', which MongoDB refuses here; rename the field")
    pending: list[tuple[dict[str, Any] | list[Any], _Path, int]] = [(document, None, 0)]
    while pending:
        container, path, depth = pending.pop()
        if depth >= BSON_MAX_DEPTH:
            raise Refused(f"the document is nested deeper than {BSON_MAX_DEPTH} levels; flatten it")
        items: Iterable[tuple[str | int, Any]] = (
            container.items() if isinstance(container, dict) else enumerate(container)
        )
        for name, value in items:
            if isinstance(name, str) and "\0" in name:
                raise Refused(f"a field name at {_dotted(path)} contains a NUL character; rename the field")
            kind = type(value)
            if kind is int:
                if not INT64_MIN <= value <= INT64_MAX:
                    raise Refused(f"the integer at {_dotted((path, name))} doesn't fit 64 bits; send it as a string")
            elif kind is float:
                if value - value != 0.0:
                    raise Refused(f"the number at {_dotted((path, name))} is not finite; send it as a string")
            elif kind is dict or kind is list:
                pending.append((value, (path, name), depth + 1))


def encode(mapping: Mapping, document_id: str, document: JsonObject, version: int) -> RawBSONDocument:
    """The MongoDB document for this state of a key: the id from the key, the version under `_sync.v`.

    Raises:
        Refused: it can't be encoded, or is larger than MongoDB takes.
    """
    try:
        data = bson.encode(
            {mapping.id_field: document_id}
            | {name: value for name, value in document.items() if name != mapping.id_field}
            | {"_sync": {"v": bson.Int64(version)}}
        )
    except (bson.errors.InvalidDocument, OverflowError, RecursionError, UnicodeEncodeError) as error:
        raise Refused(f"the document can't be encoded as BSON: {error}") from None
    if len(data) > BSON_MAX_BYTES - 64:  # room for the _id that MongoDB adds
        raise Refused(f"the document takes {len(data):,} bytes as BSON; MongoDB holds at most {BSON_MAX_BYTES:,}")
    return RawBSONDocument(data)


def decode(stored: Dict[str, Any]) -> JsonObject:
    """The document as its writer knows it: what MongoDB stores without `_id` and `_sync`."""
    return {name: value for name, value in stored.items() if name not in RESERVED}


def to_text(document: JsonObject) -> bytes:
    """JSON text of a document; BSON types that JSON lacks become strings."""
    return to_json(document, fallback=str, inf_nan_mode="null", bytes_mode="base64")


def version_of(stored: Dict[str, Any]) -> int:
    """The version of a stored document; 0 for one that was never committed by us."""
    sync = stored.get("_sync")
    version = sync.get("v") if isinstance(sync, Dict) else None
    return max(int(version), 0) if isinstance(version, int) else 0


_Path = tuple[Any, str | int] | None
"""Where a value is: the path of what holds it, and its name there; made as a chain since documents can be large."""


def _dotted(path: _Path) -> str:
    names: list[str] = []
    while path is not None:
        path, name = path
        names.append(str(name))
    return repr(".".join(reversed(names))[:200]) if names else "the top level"


def _kind(value: object) -> str:
    match value:
        case None:
            return "null"
        case bool():
            return "a boolean"
        case int() | float():
            return "a number"
        case str():
            return "a string"
        case _:
            return "an array"
