"""JSON and BSON, value by value: one bijection.

What JSON lacks is MongoDB Extended JSON v2 in its relaxed form, with `$uuid` for UUIDs:
https://github.com/mongodb/specifications/blob/master/source/extended-json/extended-json.md. BSON is as in
https://bsonspec.org/spec.html.

An object is taken for such a value only if that value is written as exactly this object. A value that would not come
back as it was is written as `{"$bson": {"base64": its bytes, "type": its BSON type}}`: an object that looks like a
value's, a NaN with a payload, a string that is no UTF-8. So neither direction loses anything, where 32- and 64-bit
integers of the same value are one.
"""

import re
import struct
from base64 import b64decode, b64encode
from collections.abc import Callable, Iterable, Iterator
from datetime import UTC, datetime, timedelta
from json.encoder import encode_basestring
from time import gmtime
from typing import Any
from uuid import UUID

from bson import Decimal128
from pydantic_core import from_json

from gears.documents.numbers import shortest
from gears.errors import WritethroughError

Value = tuple[int, bytes]
"""A BSON value: its type and its bytes."""

_DOUBLE, _STRING, _OBJECT, _ARRAY, _BINARY = 0x01, 0x02, 0x03, 0x04, 0x05
_BOOLEAN, _NULL, _REGEX, _POINTER, _SCOPED, _INT32, _INT64 = 0x08, 0x0A, 0x0B, 0x0C, 0x0F, 0x10, 0x12

_SIZES = {0x01: 8, 0x06: 0, 0x07: 12, 0x08: 1, 0x09: 8, 0x0A: 0, 0x10: 4, 0x11: 8, 0x12: 8, 0x13: 16, 0x7F: 0, 0xFF: 0}
_STRINGS = frozenset({0x02, 0x0D, 0x0E})
_EPOCH = datetime(1970, 1, 1, tzinfo=UTC)
_MILLISECOND = timedelta(milliseconds=1)
_YEAR_10000 = 253_402_300_800_000
_MOMENT = "%d-%02d-%02dT%02d:%02d:%02d"
_OPTIONS = re.compile(rb"i?l?m?s?u?x?")
_NUMBERS = {"NaN": float("nan"), "Infinity": float("inf"), "-Infinity": float("-inf")}
_NUMBER_TEXTS = {struct.pack("<d", number): name for name, number in _NUMBERS.items()}

_double = struct.Struct("<d").unpack_from
_int32 = struct.Struct("<i").unpack_from
_int64 = struct.Struct("<q").unpack_from
_uint64 = struct.Struct("<Q").unpack_from


class MalformedBson(WritethroughError, ValueError):
    """The bytes are no BSON."""


class _Unfit(WritethroughError):
    """Extended JSON has no text that comes back as this value."""


def elements(raw: bytes) -> Iterator[tuple[str, int, int, int]]:
    """The elements of a BSON document: the name, the type, and where the value begins and ends.

    Raises:
        MalformedBson: these bytes are no document.
    """
    at, last = 4, len(raw) - 1
    if _length(raw, 0) != len(raw):
        raise MalformedBson("the length of the document is wrong")
    while at < last:
        name_end = raw.find(b"\0", at + 1)
        end = _end(raw[at], raw, name_end + 1)
        if name_end < 0 or end > last:
            raise MalformedBson("the document ends within an element")
        yield raw[at + 1 : name_end].decode(errors="replace"), raw[at], name_end + 1, end
        at = end


def value_text(tag: int, raw: bytes, start: int, end: int) -> str:
    """The JSON text of a BSON value, written as RedisJSON writes it.

    Args:
        tag: its type.
        raw: bytes that hold it.
        start: where it begins.
        end: where it ends.

    Raises:
        MalformedBson: these bytes are no such value.
    """
    try:
        if _end(tag, raw, start) != end:
            raise MalformedBson("the length of a value is wrong")
        return _text(tag, raw, start, end)
    except (IndexError, struct.error) as error:
        raise MalformedBson("a value ends too early") from error


def special(wrapper: dict[str, Any]) -> Value | None:
    """The BSON value that this JSON object stands for; None when it is an object like any other."""
    read = _READERS.get(next(iter(wrapper), ""))
    if read is None:
        return None
    try:
        tag, data = read(wrapper)
        text = value_text(tag, data, 0, len(data))
    except (ValueError, TypeError, LookupError, ArithmeticError, AttributeError, RecursionError, struct.error):
        return None
    return (tag, data) if _is_text_of(text, wrapper) else None


def value_bson(value: Any) -> Value:
    """The BSON value for parsed JSON that `gears.documents.validate` has let through.

    Args:
        value: what `pydantic_core.from_json` makes of JSON text.
    """
    kind = type(value)
    if kind is str:
        text = value.encode()
        return _STRING, struct.pack("<i", len(text) + 1) + text + b"\0"
    if kind is int:
        small = -(2**31) <= value < 2**31
        return (_INT32, struct.pack("<i", value)) if small else (_INT64, struct.pack("<q", value))
    if kind is float:
        return _DOUBLE, struct.pack("<d", value)
    if kind is bool:
        return _BOOLEAN, b"\1" if value else b"\0"
    if value is None:
        return _NULL, b""
    if kind is list:
        return _ARRAY, document_bson(element(str(index), each) for index, each in enumerate(value))
    return special(value) or (_OBJECT, document_bson(element(name, each) for name, each in value.items()))


def element(name: str, value: Any) -> bytes:
    """The BSON element of this name for parsed JSON."""
    tag, data = value_bson(value)
    return b"%c%b\0%b" % (tag, name.encode(), data)


def document_bson(parts: Iterable[bytes]) -> bytes:
    """A BSON document, or array, of these elements."""
    body = b"".join(parts)
    return struct.pack("<i", len(body) + 5) + body + b"\0"


def same(one: Any, other: Any) -> bool:
    """Whether two values of parsed JSON are the same, bit by bit, type by type, name by name in order."""
    kind = type(one)
    if kind is not type(other):
        return False
    if kind is dict:
        return len(one) == len(other) and all(
            name == its_name and same(value, its_value)
            for (name, value), (its_name, its_value) in zip(one.items(), other.items(), strict=True)
        )
    if kind is list:
        return len(one) == len(other) and all(map(same, one, other))
    return bool(one == other) and (kind is not float or struct.pack("<d", one) == struct.pack("<d", other))


def _is_text_of(text: str, wrapper: dict[str, Any]) -> bool:
    if len(wrapper) == 1:  # which is quicker, and most have but one string
        [(name, value)] = wrapper.items()
        if type(value) is str:
            return text == f'{{"{name}":{encode_basestring(value)}}}'
    return same(from_json(text), wrapper)


def _length(raw: bytes, at: int) -> int:
    length: int = _int32(raw, at)[0]
    if length < 0:
        raise MalformedBson("a length is negative")
    return length


def _end(tag: int, raw: bytes, at: int) -> int:
    """Where a value ends that begins here."""
    size = _SIZES.get(tag)
    if size is not None:
        return at + size
    if tag in _STRINGS:
        return at + 4 + _length(raw, at)
    if tag in (_OBJECT, _ARRAY, _SCOPED):
        return at + _length(raw, at)
    if tag == _BINARY:
        return at + 5 + _length(raw, at)
    if tag == _REGEX:
        return raw.index(b"\0", raw.index(b"\0", at) + 1) + 1
    if tag == _POINTER:
        return at + 4 + _length(raw, at) + 12
    raise MalformedBson(f"there is no BSON type {tag:#04x}")


def _text(tag: int, raw: bytes, start: int, end: int) -> str:
    """As `value_text`, for a value whose end is known to be right."""
    if tag == _STRING:
        try:
            return encode_basestring(_string(raw, start, end))
        except UnicodeDecodeError:
            return _as_bytes(tag, raw[start:end])
    if tag == _INT32:
        return str(_int32(raw, start)[0])
    if tag == _INT64:
        return str(_int64(raw, start)[0])
    if tag == _DOUBLE:
        number: float = _double(raw, start)[0]
        if number - number == 0.0:
            return shortest(number)
        name = _NUMBER_TEXTS.get(raw[start:end])
        return f'{{"$numberDouble":"{name}"}}' if name else _as_bytes(tag, raw[start:end])
    if tag == _NULL:
        return "null"
    if tag == _BOOLEAN and raw[start] < 2:
        return "true" if raw[start] else "false"
    try:
        if tag == _ARRAY:
            return "[" + ",".join(text for _, text in _children(raw, start, end)) + "]"
        if tag == _OBJECT:
            return _object_text(raw, start, end)
        return _special_text(tag, raw, start, end)
    except (_Unfit, UnicodeDecodeError):
        return _as_bytes(tag, raw[start:end])


def _string(raw: bytes, start: int, end: int) -> str:
    if end - start < 5 or raw[end - 1]:
        raise MalformedBson("a string has no end")
    return raw[start + 4 : end - 1].decode()


def _children(raw: bytes, start: int, end: int) -> Iterator[tuple[str, str]]:
    """The names and JSON texts of what a document or array holds."""
    at, last = start + 4, end - 1
    if end - start < 5 or raw[last]:
        raise MalformedBson("a document has no end")
    while at < last:
        name_end = raw.index(b"\0", at + 1)
        value_end = _end(raw[at], raw, name_end + 1)
        if value_end > last:
            raise MalformedBson("a document ends within an element")
        yield raw[at + 1 : name_end].decode(), _text(raw[at], raw, name_end + 1, value_end)
        at = value_end


def _object_text(raw: bytes, start: int, end: int) -> str:
    text = "{" + ",".join(f"{encode_basestring(name)}:{value}" for name, value in _children(raw, start, end)) + "}"
    if text.startswith('{"$') and special(from_json(text)) is not None:
        raise _Unfit
    return text


def _special_text(tag: int, raw: bytes, start: int, end: int) -> str:
    """The JSON text of a value that JSON lacks."""
    if tag == 0x09:
        return date_text(_int64(raw, start)[0])
    if tag == 0x07:
        return f'{{"$oid":"{raw[start:end].hex()}"}}'
    if tag == 0x13:
        decimal = Decimal128.from_bid(raw[start:end])
        if Decimal128(str(decimal)).bid != decimal.bid:
            raise _Unfit
        return f'{{"$numberDecimal":"{decimal}"}}'
    if tag == _BINARY:
        return _binary_text(raw, start, end)
    if tag == _REGEX:
        middle = raw.index(b"\0", start)
        if not _OPTIONS.fullmatch(raw, middle + 1, end - 1):
            raise _Unfit
        pattern, options = raw[start:middle].decode(), raw[middle + 1 : end - 1].decode()
        return f'{{"$regularExpression":{{"pattern":{encode_basestring(pattern)},"options":"{options}"}}}}'
    if tag == 0x11:
        (both,) = _uint64(raw, start)
        return f'{{"$timestamp":{{"t":{both >> 32},"i":{both & 0xFFFFFFFF}}}}}'
    if tag == 0x0D:
        return f'{{"$code":{encode_basestring(_string(raw, start, end))}}}'
    if tag == _SCOPED:
        middle = _end(_STRING, raw, start + 4)
        if _end(_OBJECT, raw, middle) != end:
            raise MalformedBson("code and its scope have the wrong length")
        scope = ",".join(f"{encode_basestring(name)}:{value}" for name, value in _children(raw, middle, end))
        return f'{{"$code":{encode_basestring(_string(raw, start + 4, middle))},"$scope":{{{scope}}}}}'
    if tag == 0x0E:
        return f'{{"$symbol":{encode_basestring(_string(raw, start, end))}}}'
    if tag == _POINTER:
        space = encode_basestring(_string(raw, start, end - 12))
        return f'{{"$dbPointer":{{"$ref":{space},"$id":{{"$oid":"{raw[end - 12 : end].hex()}"}}}}}}'
    name = {0xFF: '"$minKey":1', 0x7F: '"$maxKey":1', 0x06: '"$undefined":true'}.get(tag)
    if name is None:
        raise _Unfit
    return f"{{{name}}}"


def date_text(milliseconds: int) -> str:
    """The JSON text of a date, given its milliseconds since 1970."""
    if not 0 <= milliseconds < _YEAR_10000:
        return f'{{"$date":{{"$numberLong":"{milliseconds}"}}}}'
    seconds, rest = divmod(milliseconds, 1000)
    moment = _MOMENT % gmtime(seconds)[:6]
    return f'{{"$date":"{moment}{f".{rest:03}" if rest else ""}Z"}}'


def _binary_text(raw: bytes, start: int, end: int) -> str:
    subtype, data = raw[start + 4], raw[start + 5 : end]
    if subtype == 4 and len(data) == 16:
        return f'{{"$uuid":"{UUID(bytes=data)}"}}'
    if subtype == 2:  # an old form, which holds its length once more
        if len(data) < 4 or _int32(data)[0] != len(data) - 4:
            raise _Unfit
        data = data[4:]
    return f'{{"$binary":{{"base64":"{b64encode(data).decode()}","subType":"{subtype:02x}"}}}}'


def _as_bytes(tag: int, data: bytes) -> str:
    return f'{{"$bson":{{"base64":"{b64encode(data).decode()}","type":"{tag:02x}"}}}}'


# What an object might stand for. Whatever these make of it, `special` sees whether it is written as the same object.


def _read_date(wrapper: dict[str, Any]) -> Value:
    date = wrapper["$date"]
    if type(date) is not str:
        return 0x09, struct.pack("<q", int(date["$numberLong"]))
    return 0x09, struct.pack("<q", (datetime.fromisoformat(date) - _EPOCH) // _MILLISECOND)


def _read_binary(wrapper: dict[str, Any]) -> Value:
    data, subtype = b64decode(wrapper["$binary"]["base64"]), int(wrapper["$binary"]["subType"], 16)
    if subtype == 2:
        data = struct.pack("<i", len(data)) + data
    return _BINARY, struct.pack("<iB", len(data), subtype) + data


def _read_regex(wrapper: dict[str, Any]) -> Value:
    parts = wrapper["$regularExpression"]
    return _REGEX, parts["pattern"].encode() + b"\0" + parts["options"].encode() + b"\0"


def _read_timestamp(wrapper: dict[str, Any]) -> Value:
    parts = wrapper["$timestamp"]
    return 0x11, struct.pack("<II", parts["i"], parts["t"])


def _read_code(wrapper: dict[str, Any]) -> Value:
    _, code = value_bson(wrapper["$code"])
    if "$scope" not in wrapper:
        return 0x0D, code
    scope = document_bson(element(name, each) for name, each in wrapper["$scope"].items())
    return _SCOPED, struct.pack("<i", 4 + len(code) + len(scope)) + code + scope


def _read_pointer(wrapper: dict[str, Any]) -> Value:
    pointer = wrapper["$dbPointer"]
    return _POINTER, value_bson(pointer["$ref"])[1] + bytes.fromhex(pointer["$id"]["$oid"])


def _read_uuid(wrapper: dict[str, Any]) -> Value:
    return _BINARY, struct.pack("<iB", 16, 4) + UUID(wrapper["$uuid"]).bytes


def _read_bytes(wrapper: dict[str, Any]) -> Value:
    return int(wrapper["$bson"]["type"], 16), b64decode(wrapper["$bson"]["base64"])


_READERS: dict[str, Callable[[dict[str, Any]], Value]] = {
    "$date": _read_date,
    "$oid": lambda wrapper: (0x07, bytes.fromhex(wrapper["$oid"])),
    "$numberDecimal": lambda wrapper: (0x13, Decimal128(wrapper["$numberDecimal"]).bid),
    "$numberDouble": lambda wrapper: (_DOUBLE, struct.pack("<d", _NUMBERS[wrapper["$numberDouble"]])),
    "$uuid": _read_uuid,
    "$binary": _read_binary,
    "$regularExpression": _read_regex,
    "$timestamp": _read_timestamp,
    "$code": _read_code,
    "$symbol": lambda wrapper: (0x0E, value_bson(wrapper["$symbol"])[1]),
    "$dbPointer": _read_pointer,
    "$minKey": lambda _: (0xFF, b""),
    "$maxKey": lambda _: (0x7F, b""),
    "$undefined": lambda _: (0x06, b""),
    "$bson": _read_bytes,
}
