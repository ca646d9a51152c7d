"""What Redis shows of a document when it has lost some of it without anybody's having written.

RedisJSON reads the text of its numbers again when it loads a file, is given a key by RESTORE or becomes a replica, and
may then be a unit in the last place off. Earlier versions of this program gave Redis strings for what JSON lacks.
"""

from datetime import UTC
from typing import Any

import bson
from bson.binary import UuidRepresentation
from bson.codec_options import CodecOptions, DatetimeConversion
from pydantic_core import from_json, to_json

from gears.contract.mapping import Mapping
from gears.contract.mongo_form import LARGE, Stored, stored_text
from gears.documents.json_bson import same
from gears.documents.numbers import read_by_redis, shortest
from gears.documents.quick_bson import BSON_ERRORS
from gears.documents.redis_json_text import read_again
from gears.documents.validate import parse_json
from gears.errors import Refused

_READ_AGAIN = 4
"""How often a number may have been read again; after that it has settled nearly always."""

_AS_BEFORE: CodecOptions[dict[str, Any]] = CodecOptions(
    tz_aware=True,
    tzinfo=UTC,
    uuid_representation=UuidRepresentation.STANDARD,
    datetime_conversion=DatetimeConversion.DATETIME_AUTO,
    unicode_decode_error_handler="replace",
)


def is_faded(mapping: Mapping, text: bytes, stored: Stored) -> bool:
    """Whether Redis holds what MongoDB holds but for what it loses by itself.

    Args:
        mapping: the key's mapping.
        text: JSON text that Redis holds.
        stored: what MongoDB holds.
    """
    if max(len(text), len(stored.raw)) >= LARGE:
        held = stored_text(mapping, stored)
        return any(text == (held := read_again(held)) for _ in range(_READ_AGAIN))
    try:
        found = parse_json(text)
        return _alike(found, parse_json(stored_text(mapping, stored))) or _alike(found, _as_before(stored))
    except Refused:
        return False


def _as_before(stored: Stored) -> Any:
    try:
        fields = bson.decode(stored.raw, _AS_BEFORE)
        fields = {name: value for name, value in fields.items() if name not in ("_id", "_sync")}
        return from_json(to_json(fields, fallback=str, inf_nan_mode="null", bytes_mode="base64"))
    except BSON_ERRORS:
        return None


def _alike(found: Any, held: Any) -> bool:
    kind = type(held)
    if type(found) is not kind:
        return False
    if kind is dict:
        return list(found) == list(held) and all(_alike(found[name], value) for name, value in held.items())
    if kind is list:
        return len(found) == len(held) and all(map(_alike, found, held))
    if kind is not float:
        return bool(found == held)
    for _ in range(_READ_AGAIN):
        if same(found, held):
            return True
        held = read_by_redis(shortest(held))
    return same(found, held)
