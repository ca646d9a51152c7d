"""Large documents: checked, measured and turned into BSON piece by piece.

A tree of Python objects may take fifty times the memory of the text. So the text is gone through once: runs of small
values are parsed, checked and encoded some at a time, by the packages that do so quickly, and only the
larger containers around them are followed one by one. It ends as soon as the document is too large.
"""

import re
import struct
from collections.abc import Mapping
from json import JSONDecodeError, JSONDecoder
from json.decoder import scanstring  # type: ignore[attr-defined]
from typing import Any, NoReturn

import bson

from gears.contract.errors import MalformedJson, Refused
from gears.documents.json_bson import element, special
from gears.documents.validate import (
    BSON_MAX_DEPTH,
    Path,
    check_container,
    check_top_name,
    may_hold_specials,
    not_an_object,
    parse_json,
)

BSON_MAX_BYTES = 16 * 1024 * 1024
"""https://www.mongodb.com/docs/manual/reference/limits/#mongodb-limit-BSON-Document-Size"""

MOST_BYTES = BSON_MAX_BYTES - 64
"""What is left of it beside the `_id` that MongoDB may add."""

_DEEPEST = BSON_MAX_DEPTH + 4
"""Levels of JSON from which on it isn't looked any deeper: values that JSON lacks have up to three of their own."""

_SPECIAL_BYTES = 64 * 1024
"""Bytes up to which an object is taken for such a value while it holds containers."""

_WINDOW = 64 * 1024
"""Bytes that are looked at at a time: what ends within these is parsed whole."""

_SPACE = rb"[ \t\n\r]*+"
_SHORT = rb'(?>"[^"\\]{0,4096}+(?:\\.[^"\\]{0,4096}+){0,64}+"|[^\s",:\[\]{}]{1,400}+)'
_FLAT = rb"(?>" + _SPACE + _SHORT + _SPACE + rb"(?::" + _SPACE + _SHORT + _SPACE + rb")?+,?+){0,64}+" + _SPACE
_SIMPLE = rb"(?>" + _SHORT + rb"|\{" + _FLAT + rb"\}|\[" + _FLAT + rb"\])"
_SIMPLE_ITEMS = re.compile(rb"(?>" + _SIMPLE + _SPACE + rb"," + _SPACE + rb"){1,1000}+")
"""Items that hold no containers that hold containers, each with its comma."""

_ANY_NAME = re.compile(rb'("[^"\\]*+(?:\\.[^"\\]*+)*+")[ \t\n\r]*+:[ \t\n\r]*+')
_ANY_SCALAR = re.compile(rb'"[^"\\]*+(?:\\.[^"\\]*+)*+"|[^\s",:\[\]{}]++')
_NEXT = re.compile(rb"[ \t\n\r]*+([,\]}])[ \t\n\r]*+")
_GAP = re.compile(rb"[ \t\n\r]*+")
_SPACES = re.compile(r"[ \t\n\r]*+")
_PIECE = re.compile(
    rb'[^"\\]{1,65536}+|(?:\\u[dD][89abAB][0-9a-fA-F]{2}\\u[dD][c-fC-F][0-9a-fA-F]{2}|\\u[0-9a-fA-F]{4}|\\[^u]){1,8192}+',
    re.DOTALL,
)


def _no_constant(name: str) -> NoReturn:
    raise ValueError(f"{name} is no JSON")


_scan = JSONDecoder(parse_constant=_no_constant).scan_once  # type: ignore[attr-defined]
"""Parses the one value that begins somewhere in a text, and says where it ends."""


class Scan:
    """One document's text, gone through once.

    Args:
        text: JSON text.
        reserved: names that no field of a document may have.
        replaced: elements to write instead of fields of the top level, by name.
        wanted: the name of a field of the top level whose value is to be found.
        front: elements to begin with.
        end: elements to end with.
        keep: whether to write BSON, not just measure it.
    """

    def __init__(
        self,
        text: bytes,
        reserved: frozenset[str],
        *,
        replaced: Mapping[str, bytes] | None = None,
        wanted: str = "",
        front: bytes = b"",
        end: bytes = b"",
        keep: bool = False,
    ) -> None:
        self._text = text
        self._reserved = reserved
        self._replaced = replaced or {}
        self._wanted = wanted
        self._keep = keep
        self._specials = may_hold_specials(text)
        self.size = 0
        """Bytes of BSON, as far as it has come."""
        self.bson = bytearray()
        """The BSON, if it is kept."""
        self.names: list[str] = []
        """The names of the fields of the top level, as far as they are few."""
        self.found: dict[str, Any] = {}
        """The field that is wanted, if it is there; None for a large value, which is no id."""
        self._front, self._end = front, end

    def run(self) -> None:
        """Go through it.

        Raises:
            MalformedJson: it is no JSON.
            Refused: it is no object, or holds what MongoDB can't, or too much.
        """
        text = self._text
        begin = self._gap(0)
        if text[begin : begin + 1] != b"{":
            raise not_an_object(text[begin : begin + 1])
        self._put(b"\0\0\0\0" + self._front)
        end = self._members(begin + 1, None, 0)
        if self._gap(end) != len(text):
            self._malformed("something follows the document", end)

    def _members(self, at: int, path: Path, depth: int) -> int:
        """What is in an object, from behind its brace on; returns where its text ends."""
        text, top = self._text, depth == 0
        at = self._gap(at)
        if text[at : at + 1] == b"}":
            return self._closed(at + 1, top)
        while True:
            fields, seen, more = _complete(text, at, names=True)
            if fields:
                self._many(fields, text[at : at + seen], path, depth)
                at += seen
                if not more:
                    return self._closed(at, top)
                continue
            named = _ANY_NAME.match(text, at)
            if named is None:
                self._malformed("a member of an object has no name", at)
            name = parse_json(named[1])
            at = self._top_member(named.end(), name) if top else self._value(named.end(), name, (path, name), depth)
            at, more = self._next(at, b"}")
            if not more:
                return self._closed(at, top)

    def _items(self, at: int, path: Path, depth: int) -> int:
        """What is in an array, from behind its bracket on; returns where its text ends."""
        text, n = self._text, 0
        at = self._gap(at)
        if text[at : at + 1] == b"]":
            return self._closed(at + 1, top=False)
        while True:
            fields, seen, more = _simple(text, at) or _complete(text, at, names=False)
            if fields:
                numbered = {str(i): value for i, value in enumerate(fields.values(), n)}
                self._many(numbered, text[at : at + seen], path, depth)
                n += len(fields)
                at += seen
                if not more:
                    return self._closed(at, top=False)
                continue
            at = self._value(at, str(n), (path, n), depth)
            n += 1
            at, more = self._next(at, b"]")
            if not more:
                return self._closed(at, top=False)

    def _top_member(self, at: int, name: str) -> int:
        check_top_name(name, self._reserved)
        if len(self.names) < _MANY:
            self.names.append(name)
        if name == self._wanted:
            self.found = {name: None}
        if name not in self._replaced:
            return self._value(at, name, (None, name), 0)
        size, kept, self._keep = self.size, self._keep, False
        at = self._value(at, name, (None, name), 0)
        self.size, self._keep = size, kept
        self._put(self._replaced[name])
        return at

    def _value(self, at: int, name: str, path: Path, depth: int) -> int:
        """One value; returns where its text ends."""
        text = self._text
        first = text[at : at + 1]
        if first not in (b"{", b"["):
            return self._scalar(at, name, path, depth)
        if "\0" in name:
            check_container({name: None}, path and path[0], depth, specials=False)
        if depth + 1 >= _DEEPEST:
            raise Refused(f"the document is nested deeper than {BSON_MAX_DEPTH} levels; flatten it")
        size, length = self.size, len(self.bson)
        self._put((b"\3" if first == b"{" else b"\4") + name.encode() + b"\0")
        begin = len(self.bson)
        self._put(b"\0\0\0\0")
        if first == b"[":
            end = self._items(at + 1, path, depth + 1)
        else:
            end = self._members(at + 1, path, depth + 1)
            if self._specials and end - at <= _SPECIAL_BYTES and _begins_special(text, at):
                value = special(parse_json(text[at:end]))
                if value is not None:
                    self.size = size
                    del self.bson[length:]
                    self._put(b"%c%b\0%b" % (value[0], name.encode(), value[1]))
                    return end
        if depth + 1 >= BSON_MAX_DEPTH:
            raise Refused(f"the document is nested deeper than {BSON_MAX_DEPTH} levels; flatten it")
        if self._keep:
            struct.pack_into("<i", self.bson, begin, len(self.bson) - begin)
        return end

    def _scalar(self, at: int, name: str, path: Path, depth: int) -> int:
        match = _ANY_SCALAR.match(self._text, at)
        if match is None:
            self._malformed("there is no value", at)
        if len(match[0]) > _SPECIAL_BYTES and match[0][:1] == b'"':
            self._long_string(match.start() + 1, match.end() - 1, name)
        else:
            self._many({name: parse_json(match[0])}, b"", path and path[0], depth)
        return match.end()

    def _long_string(self, at: int, end: int, name: str) -> None:
        text, size = self._text, self.size
        self._put(b"\2" + name.encode() + b"\0")
        begin = len(self.bson)
        self._put(b"\0\0\0\0")
        counted = self.size
        while at < end:
            piece = _PIECE.match(text, at, end)
            if piece is None:
                self._malformed("a string holds what is no escape", at)
            stop = piece.end()
            while stop < end and text[stop] & 0xC0 == 0x80:  # not within a character
                stop += 1
            self._put(parse_json(b'"' + text[at:stop] + b'"').encode())
            at = stop
        self._put(b"\0")
        if self._keep:
            struct.pack_into("<i", self.bson, begin, self.size - counted)
        assert self.size > size

    def _many(self, fields: dict[str, Any], piece: bytes, path: Path, depth: int) -> None:
        """Some small fields of a container."""
        specials = self._specials and (not piece or may_hold_specials(piece))
        if depth == 0:
            for name in fields:
                check_top_name(name, self._reserved)
            self.names += list(fields)[: _MANY - len(self.names)]
            if self._wanted in fields:
                self.found = {self._wanted: fields[self._wanted]}
        check_container(fields, path, depth, specials=specials)
        try:
            if specials or (depth == 0 and not fields.keys().isdisjoint(self._replaced)):
                replaced = self._replaced if depth == 0 else {}
                self._put(
                    b"".join(
                        replaced[name] if name in replaced else element(name, value) for name, value in fields.items()
                    )
                )
            else:
                self._put(bson.encode({"": fields})[10:-2])  # within another, since encode moves an _id to the front
        except UnicodeEncodeError:
            raise MalformedJson("the document is not valid JSON: a string holds half of a surrogate pair") from None

    def _closed(self, at: int, top: bool) -> int:
        self._put(self._end + b"\0" if top else b"\0")
        if top and self._keep:
            struct.pack_into("<i", self.bson, 0, len(self.bson))
        return at

    def _put(self, data: bytes) -> None:
        self.size += len(data)
        if self.size > MOST_BYTES:
            raise too_large(self.size)
        if self._keep:
            self.bson += data

    def _next(self, at: int, closing: bytes) -> tuple[int, bool]:
        """Behind the comma, or the closing bracket, that must follow a value; and whether more follows."""
        match = _NEXT.match(self._text, at)
        if match is None or match[1] not in (b",", closing):
            self._malformed("a comma or the end of a container is missing", at)
        return (match.end(), True) if match[1] == b"," else (match.end(1), False)

    def _gap(self, at: int) -> int:
        match = _GAP.match(self._text, at)
        return match.end() if match else at

    def _malformed(self, what: str, at: int) -> NoReturn:
        raise MalformedJson(f"the document is not valid JSON: {what}, at byte {at:,}")


_MANY = 100_000
"""Names of the top level that are kept at most."""


def _simple(text: bytes, at: int) -> tuple[dict[Any, Any], int, bool] | None:
    """As `_complete`, for items that are simple, which is quicker."""
    run = _SIMPLE_ITEMS.match(text, at, at + _WINDOW)
    if run is None or text[run.end() : run.end() + 1] in (b"]", b""):
        return None
    return dict(enumerate(parse_json(b"[" + run[0] + b"0]")[:-1])), run.end() - at, True


def _complete(text: bytes, at: int, *, names: bool) -> tuple[dict[Any, Any], int, bool]:
    """What a container holds from somewhere on, as far as it ends within the next bytes.

    Args:
        text: JSON text.
        at: where the next member or item begins.
        names: whether these are members, with names.

    Returns:
        Values by name or number, how many bytes they take with what follows them, and whether more follow.
    """
    end = at + _WINDOW
    while end < len(text) and text[end] & 0xC0 == 0x80:  # not within a character
        end -= 1
    try:
        window = text[at:end].decode()
    except UnicodeDecodeError as error:
        raise MalformedJson(f"the document is not valid JSON: {error}") from None
    found: dict[Any, Any] = {}
    begin, more, closing = 0, True, "}" if names else "]"
    try:
        while more:
            name: str | int = len(found)
            here = begin
            if names:
                if window[here] != '"':
                    break
                name, here = scanstring(window, here + 1)
                here = _behind(window, here)
                if window[here] != ":":
                    break
                here = _behind(window, here + 1)
            value, here = _scan(window, here)
            here = _behind(window, here)
            if window[here] != "," and window[here] != closing:
                break
            more = window[here] == ","
            here = _behind(window, here + 1) if more else here + 1
            if more and window[here] == closing:
                raise MalformedJson("the document is not valid JSON: a comma ends a container")
            found[name], begin = value, here
    except (IndexError, StopIteration, JSONDecodeError, RecursionError):
        more = True  # the rest is cut off, or malformed
    except ValueError as error:
        if isinstance(error, MalformedJson):
            raise
        raise MalformedJson(f"the document is not valid JSON: {error}") from None
    seen = begin if window.isascii() else len(window[:begin].encode())
    return found, seen, more


def _behind(window: str, at: int) -> int:
    """The next place that is no space."""
    if window[at] in " \t\n\r":
        match = _SPACES.match(window, at)
        at = match.end() if match else at
    return at


def too_large(size: int) -> Refused:
    """A document takes this much, or more."""
    return Refused(f"the document takes {size:,} bytes as BSON or more; MongoDB holds at most {BSON_MAX_BYTES:,}")


def _begins_special(text: bytes, at: int) -> bool:
    """Whether the first name of an object begins with a dollar sign."""
    name = _GAP.match(text, at + 1)
    return name is not None and text.startswith((b'"$', b'"\\u0024'), name.end())
