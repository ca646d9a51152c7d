"""Large documents: checked, measured and turned into BSON piece by piece.

A tree of Python objects may take fifty times the memory of the text. So the text is gone through once: runs of small
values are parsed, checked and encoded some at a time, by the packages that do so quickly, and only the
larger containers around them are followed one by one. It ends as soon as the document is too large.
"""

from collections.abc import Mapping
from typing import Any

import bson

from gears.documents.json_bson import element, special
from gears.documents.json_runs import (
    ANY_NAME,
    ANY_SCALAR,
    begins_special,
    complete,
    gap,
    malformed,
    next_of,
    simple,
    string_pieces,
)
from gears.documents.measured_bson import MeasuredBson
from gears.documents.validate import (
    BSON_MAX_DEPTH,
    Path,
    check_container,
    check_top_name,
    may_hold_specials,
    not_an_object,
    parse_json,
)
from gears.errors import MalformedJson, Refused

_DEEPEST = BSON_MAX_DEPTH + 4
"""Levels of JSON from which on it isn't looked any deeper: values that JSON lacks have up to three of their own."""

_SPECIAL_BYTES = 64 * 1024
"""Bytes up to which an object is taken for such a value while it holds containers."""

_MANY = 100_000
"""Names of the top level that are kept at most."""


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
        self._specials = may_hold_specials(text)
        self.bson = MeasuredBson(keep=keep)
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
        begin = gap(text, 0)
        if text[begin : begin + 1] != b"{":
            raise not_an_object(text[begin : begin + 1])
        self.bson.begin()
        self.bson.put(self._front)
        end = self._members(begin + 1, None, 0)
        if gap(text, end) != len(text):
            malformed("something follows the document", end)

    def _members(self, at: int, path: Path, depth: int) -> int:
        """What is in an object, from behind its brace on; returns where its text ends."""
        text, top = self._text, depth == 0
        at = gap(text, at)
        if text[at : at + 1] == b"}":
            return self._closed(at + 1, top)
        while True:
            fields, seen, more = complete(text, at, names=True)
            if fields:
                self._many(fields, text[at : at + seen], path, depth)
                at += seen
                if not more:
                    return self._closed(at, top)
                continue
            named = ANY_NAME.match(text, at)
            if named is None:
                malformed("a member of an object has no name", at)
            name = parse_json(named[1])
            at = self._top_member(named.end(), name) if top else self._value(named.end(), name, (path, name), depth)
            at, more = next_of(text, at, b"}")
            if not more:
                return self._closed(at, top)

    def _items(self, at: int, path: Path, depth: int) -> int:
        """What is in an array, from behind its bracket on; returns where its text ends."""
        text, n = self._text, 0
        at = gap(text, at)
        if text[at : at + 1] == b"]":
            return self._closed(at + 1, top=False)
        while True:
            fields, seen, more = simple(text, at) or complete(text, at, names=False)
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
            at, more = next_of(text, at, b"]")
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
        out = self.bson
        size, kept, out.keep = out.size, out.keep, False
        at = self._value(at, name, (None, name), 0)
        out.size, out.keep = size, kept
        out.put(self._replaced[name])
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
        out = self.bson
        size, length = out.size, len(out.kept)
        begin = out.begin((b"\3" if first == b"{" else b"\4") + name.encode() + b"\0")
        if first == b"[":
            end = self._items(at + 1, path, depth + 1)
        else:
            end = self._members(at + 1, path, depth + 1)
            if self._specials and end - at <= _SPECIAL_BYTES and begins_special(text, at):
                value = special(parse_json(text[at:end]))
                if value is not None:
                    out.size = size
                    del out.kept[length:]
                    out.put(b"%c%b\0%b" % (value[0], name.encode(), value[1]))
                    return end
        if depth + 1 >= BSON_MAX_DEPTH:
            raise Refused(f"the document is nested deeper than {BSON_MAX_DEPTH} levels; flatten it")
        out.end(begin)
        return end

    def _scalar(self, at: int, name: str, path: Path, depth: int) -> int:
        match = ANY_SCALAR.match(self._text, at)
        if match is None:
            malformed("there is no value", at)
        if len(match[0]) > _SPECIAL_BYTES and match[0][:1] == b'"':
            self._long_string(match.start() + 1, match.end() - 1, name)
        else:
            self._many({name: parse_json(match[0])}, b"", path and path[0], depth)
        return match.end()

    def _long_string(self, at: int, end: int, name: str) -> None:
        begin = self.bson.begin(b"\2" + name.encode() + b"\0")
        for piece in string_pieces(self._text, at, end):
            self.bson.put(piece)
        self.bson.put(b"\0")
        self.bson.end(begin, counting_itself=False)

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
                self.bson.put(
                    b"".join(
                        replaced[name] if name in replaced else element(name, value) for name, value in fields.items()
                    )
                )
            else:
                self.bson.put(
                    bson.encode({"": fields})[10:-2]
                )  # within another, since encode moves an _id to the front
        except UnicodeEncodeError:
            raise MalformedJson("the document is not valid JSON: a string holds half of a surrogate pair") from None

    def _closed(self, at: int, top: bool) -> int:
        self.bson.put(self._end + b"\0" if top else b"\0")
        if top:
            self.bson.end(0)
        return at
