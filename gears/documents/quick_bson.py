"""BSON decoded by the package `bson`, which is quick, without losing what its types lose."""

from typing import Any
from uuid import UUID

import bson
from bson import Binary, Code, Decimal128, ObjectId
from bson.binary import UUID_SUBTYPE, UuidRepresentation
from bson.codec_options import CodecOptions, DatetimeConversion, TypeDecoder, TypeEncoder, TypeRegistry
from bson.datetime_ms import DatetimeMS
from pydantic_core import from_json

from gears.documents.json_bson import date_text


class Opaque:
    """Stands for a value that `pydantic_core.to_json` would take for a plain string."""

    __slots__ = ("value",)

    def __init__(self, value: Any) -> None:
        self.value = value


class _Hide(TypeDecoder):
    def __init__(self, bson_type: type[Any]) -> None:
        self._bson_type = bson_type

    @property
    def bson_type(self) -> Any:
        return self._bson_type

    def transform_bson(self, value: Any) -> Opaque:
        return Opaque(value)


class _Show(TypeEncoder):
    python_type = Opaque

    def transform_python(self, value: Opaque) -> Any:
        return value.value


_EXACT: CodecOptions[dict[str, Any]] = CodecOptions(
    uuid_representation=UuidRepresentation.UNSPECIFIED,
    datetime_conversion=DatetimeConversion.DATETIME_MS,
    type_registry=TypeRegistry([_Hide(Binary), _Hide(bytes), _Hide(Code), _Show()]),
)

BSON_ERRORS = (bson.errors.BSONError, ValueError, TypeError, OverflowError)
"""What `bson` raises for what Python's types can't hold, or what is no BSON."""


def decode(raw: bytes) -> dict[str, Any] | None:
    """The fields of a BSON document.

    Returns:
        The fields; None when this way loses something, so that it doesn't encode to the same bytes: a symbol, a string
        that is no UTF-8, ...
    """
    try:
        fields = bson.decode(raw, _EXACT)
        return fields if bson.encode(fields, codec_options=_EXACT) == raw else None
    except BSON_ERRORS:
        return None


def special_json(value: object) -> dict[str, str]:
    """The JSON object for a decoded value that JSON lacks.

    Raises:
        ValueError: to say that takes its bytes; see `gears.documents.json_bson.value_text`.
    """
    if isinstance(value, DatetimeMS):
        return dict(from_json(date_text(int(value))))
    if isinstance(value, ObjectId):
        return {"$oid": str(value)}
    if isinstance(value, Decimal128) and Decimal128(str(value)).bid == value.bid:
        return {"$numberDecimal": str(value)}
    if isinstance(value, Opaque) and isinstance(value.value, Binary) and is_uuid(value.value):
        return {"$uuid": str(UUID(bytes=bytes(value.value)))}
    raise ValueError("this takes its bytes")


def is_uuid(value: Binary) -> bool:
    """Whether this is binary of a UUID's subtype and length."""
    return value.subtype == UUID_SUBTYPE and len(value) == 16
