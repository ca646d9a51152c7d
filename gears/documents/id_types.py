"""Ids: the types that a mapping's ids can have, each with one canonical text.

The text is what stands in the key and in the path, and what the system passes around; the value is what MongoDB holds
and what a document shows.
"""

import re
import struct
from abc import ABC, abstractmethod
from hashlib import blake2b
from typing import Any, ClassVar
from uuid import UUID, uuid5

from bson import Binary, Int64, ObjectId
from bson.binary import UUID_SUBTYPE
from pydantic_core import to_json
from uuid_utils import uuid7

from gears.documents.json_bson import same
from gears.documents.quick_bson import Opaque, is_uuid
from gears.errors import NotAnId, Refused

ID_MAX_BYTES = 1024

_INT64 = 2**63

_DERIVED = UUID("5b6c2f3e-7f0b-4a53-9d0c-3f1a0f6f1f7d")
"""The namespace of UUIDs that are derived from a seed."""


class IdType(ABC):
    """One type of ids."""

    name: ClassVar[str]
    """How `MAPPINGS` calls it."""
    example: ClassVar[str]
    """An id of this type, as text."""
    makes_ids: ClassVar[bool] = True
    """Whether new ids can be made up."""
    alike: ClassVar[list[str]]
    """The BSON types, as `$type` names them, of values that may be ids of this type."""

    @abstractmethod
    def parse(self, text: str) -> Any:
        """The value that MongoDB holds for an id's text.

        Raises:
            NotAnId: this isn't the canonical text of an id of this type.
            Refused: it can't be an id for another reason.
        """

    def bound(self, text: str) -> Any:
        """A value to page after; raises as `parse`."""
        return self.parse(text)

    @abstractmethod
    def text(self, value: object) -> str | None:
        """The text of the id that MongoDB holds; None when it holds no id of this type."""

    @abstractmethod
    def json(self, text: str) -> Any:
        """The id as a document shows it, as parsed JSON."""

    def text_in(self, shown: Any) -> str | None:
        """The text of the id that a document shows, as parsed JSON; None when that is no id of this type.

        Raises:
            Refused: it can't be an id for another reason.
        """
        text = str(next(iter(shown.values()), "")) if isinstance(shown, dict) else str(shown)
        try:
            return text if same(self.json(text), shown) and self.parse(text) is not None else None
        except ValueError as error:
            if isinstance(error, Refused) and not isinstance(error, NotAnId):
                raise
            return None

    def json_text(self, text: str) -> bytes:
        """The id as a document shows it, as JSON text."""
        return to_json(self.json(text))

    @abstractmethod
    def bson(self, text: str) -> tuple[int, bytes]:
        """The BSON type and value of the id."""

    @abstractmethod
    def new(self, seed: str | None = None) -> str:
        """A new id.

        Args:
            seed: what the id is derived from, always the same one from the same seed; None for one that is at random.

        Raises:
            Refused: ids of this type can't be made up.
        """

    @property
    @abstractmethod
    def lowest(self) -> Any:
        """A value that is at or below all of this type."""

    def _refused(self, text: str, what: str) -> NotAnId:
        return NotAnId(f"the id {text[:100]!r} is not {what}, such as {self.example}, which this mapping's ids are")


class Text(IdType):
    """Strings: any UTF-8 without a NUL."""

    name = "str"
    example = "a1"
    alike: ClassVar[list[str]] = ["string"]
    lowest = ""

    def parse(self, text: str) -> str:
        if not text:
            raise Refused("the id is empty; give it at least one character")
        if len(text.encode()) > ID_MAX_BYTES:
            raise Refused(f"the id is longer than {ID_MAX_BYTES} bytes; use a shorter one")
        if "\0" in text:
            raise Refused("the id contains a NUL character; remove it")
        return text

    def bound(self, text: str) -> str:
        return text

    def text(self, value: object) -> str | None:
        return value if type(value) is str else None

    def json(self, text: str) -> str:
        return text

    def bson(self, text: str) -> tuple[int, bytes]:
        raw = text.encode()
        return 0x02, struct.pack("<i", len(raw) + 1) + raw + b"\0"

    def new(self, seed: str | None = None) -> str:
        return str(uuid7() if seed is None else uuid5(_DERIVED, seed))


class Whole(IdType):
    """Whole numbers of 64 bits, in decimal."""

    name = "int"
    example = "7"
    makes_ids = False
    alike: ClassVar[list[str]] = ["int", "long", "double"]
    lowest = Int64(-_INT64)

    _CANONICAL = re.compile(r"0|-?[1-9][0-9]{0,18}")

    def parse(self, text: str) -> int:
        if not self._CANONICAL.fullmatch(text) or not -_INT64 <= int(text) < _INT64:
            raise self._refused(text, "a whole number of 64 bits")
        return int(text)

    def text(self, value: object) -> str | None:
        if isinstance(value, float) and value.is_integer() and -_INT64 <= value < _INT64:
            return str(int(value))  # for MongoDB that is the same id
        return str(int(value)) if isinstance(value, int) and not isinstance(value, bool) else None

    def json(self, text: str) -> int:
        return int(text)

    def bson(self, text: str) -> tuple[int, bytes]:
        value = int(text)
        small = -(2**31) <= value < 2**31
        return (0x10, struct.pack("<i", value)) if small else (0x12, struct.pack("<q", value))

    def new(self, seed: str | None = None) -> str:
        raise Refused("this mapping's ids are whole numbers, which are not made up; give the document one, or PUT it")


class Oid(IdType):
    """ObjectIds, as 24 hexadecimal digits in lower case."""

    name = "oid"
    example = "5f0c5f5b8f1c2b0001a0b0c1"
    alike: ClassVar[list[str]] = ["objectId"]
    lowest = ObjectId(bytes(12))

    _CANONICAL = re.compile(r"[0-9a-f]{24}")

    def parse(self, text: str) -> ObjectId:
        if not self._CANONICAL.fullmatch(text):
            raise self._refused(text, "an ObjectId of 24 lower-case hexadecimal digits")
        return ObjectId(text)

    def text(self, value: object) -> str | None:
        return str(value) if isinstance(value, ObjectId) else None

    def json(self, text: str) -> dict[str, str]:
        return {"$oid": text}

    def bson(self, text: str) -> tuple[int, bytes]:
        return 0x07, bytes.fromhex(text)

    def new(self, seed: str | None = None) -> str:
        return str(ObjectId()) if seed is None else blake2b(seed.encode(), digest_size=12).hexdigest()


class Uuid(IdType):
    """UUIDs (binary of subtype 4), in lower case with hyphens."""

    name = "uuid"
    example = "3b241101-e2bb-4255-8caf-4136c566a962"
    alike: ClassVar[list[str]] = ["binData"]
    lowest = Binary(bytes(16), UUID_SUBTYPE)

    _CANONICAL = re.compile(r"[0-9a-f]{8}(-[0-9a-f]{4}){3}-[0-9a-f]{12}")

    def parse(self, text: str) -> Binary:
        if not self._CANONICAL.fullmatch(text):
            raise self._refused(text, "a UUID in lower case with hyphens")
        return Binary(UUID(text).bytes, UUID_SUBTYPE)

    def text(self, value: object) -> str | None:
        if isinstance(value, Opaque):
            value = value.value
        return str(UUID(bytes=bytes(value))) if isinstance(value, Binary) and is_uuid(value) else None

    def json(self, text: str) -> dict[str, str]:
        return {"$uuid": text}

    def bson(self, text: str) -> tuple[int, bytes]:
        return 0x05, struct.pack("<iB", 16, UUID_SUBTYPE) + UUID(text).bytes

    def new(self, seed: str | None = None) -> str:
        return str(uuid7() if seed is None else uuid5(_DERIVED, seed))


ID_TYPES: dict[str, IdType] = {each.name: each for each in (Text(), Whole(), Oid(), Uuid())}
"""The id types, by the name that `MAPPINGS` gives them."""
