"""Runs of small values in a long JSON text: where each ends, and what it holds, some at a time.

Values are parsed by the packages that do so quickly; what is looked at here is where they begin and end.
"""

import re
from collections.abc import Iterator
from json import JSONDecodeError, JSONDecoder
from json.decoder import scanstring  # type: ignore[attr-defined]
from typing import Any, NoReturn

from gears.documents.validate import parse_json
from gears.errors import MalformedJson

_WINDOW = 64 * 1024
"""Bytes that are looked at at a time: what ends within these is parsed whole."""

_SPACE = rb"[ \t\n\r]*+"
_SHORT = rb'(?>"[^"\\]{0,4096}+(?:\\.[^"\\]{0,4096}+){0,64}+"|[^\s",:\[\]{}]{1,400}+)'
_FLAT = rb"(?>" + _SPACE + _SHORT + _SPACE + rb"(?::" + _SPACE + _SHORT + _SPACE + rb")?+,?+){0,64}+" + _SPACE
_SIMPLE = rb"(?>" + _SHORT + rb"|\{" + _FLAT + rb"\}|\[" + _FLAT + rb"\])"
_SIMPLE_ITEMS = re.compile(rb"(?>" + _SIMPLE + _SPACE + rb"," + _SPACE + rb"){1,1000}+")
"""Items that hold no containers that hold containers, each with its comma."""

ANY_NAME = re.compile(rb'("[^"\\]*+(?:\\.[^"\\]*+)*+")[ \t\n\r]*+:[ \t\n\r]*+')
ANY_SCALAR = re.compile(rb'"[^"\\]*+(?:\\.[^"\\]*+)*+"|[^\s",:\[\]{}]++')
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


def complete(text: bytes, at: int, *, names: bool) -> tuple[dict[Any, Any], int, bool]:
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


def simple(text: bytes, at: int) -> tuple[dict[Any, Any], int, bool] | None:
    """As `complete`, for items that are simple, which is quicker."""
    run = _SIMPLE_ITEMS.match(text, at, at + _WINDOW)
    if run is None or text[run.end() : run.end() + 1] in (b"]", b""):
        return None
    return dict(enumerate(parse_json(b"[" + run[0] + b"0]")[:-1])), run.end() - at, True


def _behind(window: str, at: int) -> int:
    """The next place that is no space."""
    if window[at] in " \t\n\r":
        match = _SPACES.match(window, at)
        at = match.end() if match else at
    return at


def begins_special(text: bytes, at: int) -> bool:
    """Whether the first name of the object that begins here begins with a dollar sign."""
    name = _GAP.match(text, at + 1)
    return name is not None and text.startswith((b'"$', b'"\\u0024'), name.end())


def string_pieces(text: bytes, at: int, end: int) -> Iterator[bytes]:
    """What a long string holds, piece by piece, as UTF-8.

    Args:
        text: JSON text.
        at: where the string begins, behind its quote.
        end: where it ends, before its quote.

    Raises:
        MalformedJson: it holds what is no escape.
    """
    while at < end:
        piece = _PIECE.match(text, at, end)
        if piece is None:
            malformed("a string holds what is no escape", at)
        stop = piece.end()
        while stop < end and text[stop] & 0xC0 == 0x80:  # not within a character
            stop += 1
        yield parse_json(b'"' + text[at:stop] + b'"').encode()
        at = stop


def next_of(text: bytes, at: int, closing: bytes) -> tuple[int, bool]:
    """Behind the comma, or the closing bracket, that must follow a value; and whether more follows.

    Args:
        text: JSON text.
        at: where the value ends.
        closing: the bracket.

    Raises:
        MalformedJson: neither is there.
    """
    match = _NEXT.match(text, at)
    if match is None or match[1] not in (b",", closing):
        malformed("a comma or the end of a container is missing", at)
    return (match.end(), True) if match[1] == b"," else (match.end(1), False)


def gap(text: bytes, at: int) -> int:
    """Where what may be space from here on ends."""
    match = _GAP.match(text, at)
    return match.end() if match else at


def malformed(what: str, at: int) -> NoReturn:
    """Raise `MalformedJson`, telling what is wrong and where."""
    raise MalformedJson(f"the document is not valid JSON: {what}, at byte {at:,}")
