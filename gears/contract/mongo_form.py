"""A document as MongoDB stores it, and the way there and back.

Pure functions: JSON text as RedisJSON prints it on one side, BSON on the other. MongoDB stores the document with its id
in the mapping's type, and `_sync`: the version `v` and, since MongoDB moves an `_id` to the front, its own place `i`.
"""

from collections.abc import Collection
from collections.abc import Mapping as Dict
from dataclasses import dataclass
from itertools import chain
from json.encoder import encode_basestring
from typing import Any

import bson
from anyio import to_thread
from bson import Int64
from pydantic_core import to_json

from gears.contract.mapping import Mapping
from gears.documents.json_bson import Value, document_bson, element, elements, same, value_text
from gears.documents.large_documents import Scan
from gears.documents.quick_bson import decode, special_json
from gears.documents.validate import JsonObject, may_hold_specials, parse_object
from gears.errors import Refused

LARGE = 512 * 1024
"""Bytes from which on a document isn't made a tree of objects, which would take many times as much."""

SLOW = 64 * 1024
"""Bytes from which on work on a document is done in a thread."""

_ROOM = 2048
"""Bytes that the id and `_sync` may take."""


@dataclass(frozen=True, slots=True)
class Stored:
    """What MongoDB holds of a document.

    Args:
        id: the document's id, as text.
        version: its version; 0 for one that was never committed by us.
        raw: all of it as BSON, `_id` and `_sync` included.
        fields: the same decoded; None when it takes long, or loses something.
    """

    id: str
    version: int
    raw: bytes
    fields: Dict[str, Any] | None


@dataclass(frozen=True, slots=True)
class Encoded:
    """A document for MongoDB.

    Args:
        raw: all of it as BSON.
        has_its_id: whether the JSON text holds the id, as it should.
    """

    raw: bytes
    has_its_id: bool


def encode(mapping: Mapping, document_id: str, text: bytes, version: int) -> Encoded:
    """The MongoDB document for this state of a key: the id is the key's, whatever the text says.

    Raises:
        Refused: MongoDB can't hold it.
    """
    if len(text) >= LARGE:
        return _encode_large(mapping, document_id, text, version)
    document = parse_object(text, mapping.reserved)
    id_field, id_json = mapping.id_field, mapping.id_type.json(document_id)
    has_its_id = id_field in document and same(document[id_field], id_json)
    if not has_its_id:
        document = with_id(mapping, document_id, document)
    sync = _sync(version, list(document).index("_id") if id_field == "_id" else 0)
    try:
        if may_hold_specials(text):
            data = _encode_exactly(mapping, document_id, document, sync)
        else:
            document[id_field] = mapping.id_type.parse(document_id)
            document["_sync"] = sync
            data = bson.encode(document)
    except (bson.errors.InvalidDocument, OverflowError, RecursionError, UnicodeEncodeError) as error:
        raise Refused(f"the document can't be encoded as BSON: {error}") from None
    return Encoded(data, has_its_id)


def _encode_large(mapping: Mapping, document_id: str, text: bytes, version: int) -> Encoded:
    id_field = mapping.id_field
    found: JsonObject = {id_field: mapping.id_type.json(document_id)}
    front = to_json(found)[:-1]
    if not text.startswith((front + b",", front + b"}")):
        found = measured(mapping, text)
    has_its_id = id_field in found and same(found[id_field], mapping.id_type.json(document_id))
    place = list(found).index(id_field) if id_field in found else 0
    own = _element(id_field, mapping.id_type.bson(document_id))
    first = id_field == "_id" or id_field not in found
    scan = Scan(
        text,
        mapping.reserved,
        replaced={id_field: b"" if first else own},
        front=own if first else b"",
        end=b"\x03_sync\0" + bson.encode(_sync(version, place if id_field == "_id" else 0)),
        keep=True,
    )
    scan.run()
    return Encoded(bytes(scan.bson.kept), has_its_id)


def _sync(version: int, place: int) -> JsonObject:
    return {"v": Int64(version)} | ({"i": place} if place else {})


def _element(name: str, value: Value) -> bytes:
    return b"%c%b\0%b" % (value[0], name.encode(), value[1])


def measured(mapping: Mapping, text: bytes) -> JsonObject:
    """The names of a large document's fields, and the value of its id; all other values are None.

    Raises:
        Refused: MongoDB can't hold it.
    """
    scan = Scan(text, mapping.reserved, wanted=mapping.id_field, front=bytes(_ROOM))
    scan.run()
    return dict.fromkeys(scan.names) | scan.found


def with_id(mapping: Mapping, document_id: str, document: JsonObject) -> JsonObject:
    """The document with this id: where its id is, or in front."""
    id_json = {mapping.id_field: mapping.id_type.json(document_id)}
    return document | id_json if mapping.id_field in document else id_json | document


def _encode_exactly(mapping: Mapping, document_id: str, document: JsonObject, sync: JsonObject) -> bytes:
    """As `bson.encode`, for documents that hold values which JSON lacks."""
    own = _element(mapping.id_field, mapping.id_type.bson(document_id))
    first = [own] if mapping.id_field == "_id" else []
    rest = (
        own if name == mapping.id_field else element(name, value)
        for name, value in document.items()
        if not (first and name == "_id")
    )
    return document_bson(chain(first, rest, [b"\x03_sync\0" + bson.encode(sync)]))


def read_stored(mapping: Mapping, raw: bytes) -> Stored | None:
    """What these bytes of BSON are; None when they hold no id of the mapping's type."""
    fields = decode(raw) if len(raw) < SLOW else None
    some = fields if fields is not None else _pick(raw, {mapping.id_field, "_sync"})
    document_id = mapping.id_type.text(some.get(mapping.id_field))
    return None if document_id is None else Stored(document_id, version_in(some.get("_sync")), raw, fields)


def version_in(sync: object) -> int:
    """The version that a document's `_sync` names; 0 when it names none of ours."""
    version = sync.get("v") if isinstance(sync, Dict) else None
    return max(int(version), 0) if isinstance(version, int) else 0


def stored_text(mapping: Mapping, stored: Stored) -> bytes:
    """The document as its writer knows it: JSON text as RedisJSON prints it, without what we and MongoDB added."""
    if len(stored.raw) < LARGE and b"$" not in stored.raw:
        fields = stored.fields or decode(stored.raw)
        text = None if fields is None else _plain_text(mapping, stored.id, fields)
        if text is not None:
            return text
    parts: list[tuple[str, str]] = []
    place = 0
    for name, tag, start, end in elements(stored.raw):
        if name == mapping.id_field:
            parts.append((name, mapping.id_type.json_text(stored.id).decode()))
        elif name == "_sync":
            place = _place(_decode_element(stored.raw, name, tag, start, end))
        elif name != "_id":
            parts.append((name, value_text(tag, stored.raw, start, end)))
    if mapping.id_field == "_id":
        parts.insert(place, parts.pop(0))
    return ("{" + ",".join(f"{encode_basestring(name)}:{value}" for name, value in parts) + "}").encode()


async def text_of(mapping: Mapping, stored: Stored) -> bytes:
    """As `stored_text`, in a thread if it takes long."""
    if len(stored.raw) < SLOW:
        return stored_text(mapping, stored)
    return await to_thread.run_sync(stored_text, mapping, stored)


def plain_fields(mapping: Mapping, fields: Dict[str, Any]) -> JsonObject:
    """The fields that a document's writer knows, in their order, as `Stored` has them."""
    document = dict(fields)
    place = _place(document.pop("_sync", None))
    if mapping.id_field != "_id":
        document.pop("_id", None)
    elif place:
        items = list(document.items())
        items.insert(place, items.pop(0))
        document = dict(items)
    return document


def _plain_text(mapping: Mapping, document_id: str, fields: Dict[str, Any]) -> bytes | None:
    """The fast way to `stored_text`'s answer; None for documents that it isn't for."""
    document = plain_fields(mapping, fields)
    document[mapping.id_field] = mapping.id_type.json(document_id)
    try:
        text = to_json(document, fallback=special_json, inf_nan_mode="constants")
    except ValueError:
        return None
    return None if any(odd in text for odd in _ODD) else text


_ODD = (b"e+", b"NaN", b"Infinity")
"""Where one of these is in the text it may not be as RedisJSON prints it, or no JSON."""


def _place(sync: object) -> int:
    place = sync.get("i") if isinstance(sync, Dict) else None
    return place if isinstance(place, int) else 0


def _pick(raw: bytes, names: Collection[str]) -> JsonObject:
    """Some of the fields, decoded."""
    return {
        name: _decode_element(raw, name, tag, start, end) for name, tag, start, end in elements(raw) if name in names
    }


def _decode_element(raw: bytes, name: str, tag: int, start: int, end: int) -> Any:
    return (decode(document_bson([_element(name, (tag, raw[start:end]))])) or {}).get(name)
