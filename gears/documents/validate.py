"""What MongoDB can hold of a JSON document: parsed and checked, before anything is written."""

from collections.abc import Iterable
from typing import Any

from pydantic_core import from_json, to_json

from gears.documents.json_bson import special
from gears.errors import MalformedJson, Refused

BSON_MAX_DEPTH = 100
"""https://www.mongodb.com/docs/manual/reference/limits/#mongodb-limit-Nested-Depth-for-BSON-Documents"""

INT64_MIN, INT64_MAX = -(2**63), 2**63 - 1

JsonObject = dict[str, Any]

Container = dict[str, Any] | list[Any]

Path = tuple[Any, str | int] | None
"""Where a value is: the path of what holds it, and its name there; made as a chain since documents can be large."""


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


def parse_object(text: bytes | str, reserved: frozenset[str]) -> JsonObject:
    """Parse the JSON text of a document, as strictly as RedisJSON and BSON need it.

    Args:
        text: JSON text.
        reserved: names that no field of a document may have.

    Raises:
        MalformedJson: it is no JSON.
        Refused: it is no object, or holds what MongoDB can't.
    """
    value = parse_json(text)
    if not isinstance(value, dict):
        raise not_an_object(to_json(value))
    check_object(value, reserved, specials=may_hold_specials(text))
    return value


def may_hold_specials(text: bytes | str) -> bool:
    """Whether JSON text may hold values that JSON lacks; see `gears.documents.json_bson`."""
    text = text.encode() if isinstance(text, str) else text
    return b'"$' in text or b'"\\u0024' in text


def check_object(document: JsonObject, reserved: frozenset[str], *, specials: bool = True) -> None:
    """Raise `Refused`, naming the field, if MongoDB can't hold this document.

    Args:
        document: a parsed one.
        reserved: names that no field of a document may have.
        specials: whether it may hold values that JSON lacks.
    """
    for field in document:
        check_top_name(field, reserved)
    check_container(document, None, 0, specials=specials)


def check_top_name(name: str, reserved: frozenset[str]) -> None:
    """Raise `Refused` if no field of a document may have this name."""
    if name in reserved:
        raise Refused(f"the field name {name!r} is reserved; rename the field")
    if name.startswith("$"):
        raise Refused(f"the field name {name!r} starts with '$', which MongoDB refuses here; rename the field")


def check_container(container: Container, path: Path, depth: int, *, specials: bool) -> None:
    """Raise `Refused`, naming the field, if MongoDB can't hold what is in a container.

    Args:
        container: an object or array, parsed.
        path: where it is.
        depth: in how many others it is.
        specials: whether it may hold values that JSON lacks.
    """
    pending: list[tuple[Container, Path, int]] = [(container, path, depth)]
    while pending:
        container, path, depth = pending.pop()
        if specials and isinstance(container, dict) and special(container):
            continue
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


def not_an_object(text: bytes) -> Refused:
    """JSON text that begins like this is no object."""
    kinds = {b"[": "an array", b'"': "a string", b"n": "null", b"t": "a boolean", b"f": "a boolean"}
    return Refused(f"the document must be a JSON object, not {kinds.get(text[:1], 'a number')}")


def _dotted(path: Path) -> str:
    names: list[str] = []
    while path is not None:
        path, name = path
        names.append(str(name))
    return repr(".".join(reversed(names))[:200]) if names else "the top level"
