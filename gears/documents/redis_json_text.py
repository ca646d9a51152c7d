"""The text that RedisJSON reads as exactly the numbers that are meant; see `gears.documents.numbers`."""

import re
from collections.abc import Sequence
from typing import NamedTuple

from pydantic_core import from_json, to_json

from gears.documents.numbers import json_path, path_by_number, read_by_redis, shortest, text_for_redis

_LARGE = 64 * 1024
"""Bytes from which on a document isn't made a tree of objects."""

_NEEDS_CARE = re.compile(rb"[:,\[ \n\r\t-][0-9](?:[0-9.]{16}|[0-9.]*+[eE])")
"""Found where a number has more than 15 digits, or an exponent, and now and then within a string."""

_STRING = rb'"[^"\\]*+(?:\\.[^"\\]*+)*+"'
_NUMBERS = re.compile(_STRING + rb"|(-?[0-9][0-9.]*+(?:[eE][+-]?[0-9]++)?)")
_STEPS = re.compile(_STRING + rb'|[{}\[\],:]|[^\s"{}\[\],:]++')


def for_redis(document: bytes) -> Sequence[str | bytes]:
    """How to have Redis read this document.

    Args:
        document: JSON text of an object.

    Returns:
        The text for `JSON.SET`, and paths and amounts, in turn, for a `JSON.NUMINCRBY` each after it.
    """
    if not _NEEDS_CARE.search(document):
        return (document,)
    text, increments = _rewritten(document)
    if not increments:
        return (text,)
    if len(document) < _LARGE:
        document = to_json(from_json(document))  # each name once, so that each path is one number's
    text, increments = _rewritten(document)
    places = _places(text, [increment.at for increment in increments])
    if any(json_path(place) is None for place in places):
        text, increments = _rewritten(document, taken=_numbers_in(document))
    parts: list[str | bytes] = [text]
    for place, increment in zip(places, increments, strict=True):
        parts += (json_path(place) or path_by_number(place, increment.base), increment.amount)
    return parts


class _Increment(NamedTuple):
    at: int
    """Where in the text its number stands."""
    base: float
    """What Redis reads there."""
    amount: str


def _rewritten(document: bytes, taken: set[float] | None = None) -> tuple[bytes, list[_Increment]]:
    """The text with all numbers as Redis reads them, and the increments that some take.

    Args:
        document: JSON text.
        taken: doubles that no number with an increment may be read as; each that one is read as is added.
    """
    text = bytearray()
    increments: list[_Increment] = []
    copied = 0
    for match in _NUMBERS.finditer(document):
        token = match[1]
        if token is None or (len(token) < 17 and b"e" not in token and b"E" not in token):
            continue
        if token.lstrip(b"-").isdigit():
            continue  # an integer
        number = text_for_redis(float(token), taken or ())
        text += document[copied : match.start()]
        if number.increment is not None:
            increments.append(_Increment(len(text), read_by_redis(number.text), number.increment))
            if taken is not None:
                taken.add(increments[-1].base)
        text += number.text.encode()
        copied = match.end()
    text += document[copied:]
    return bytes(text), increments


def _numbers_in(document: bytes) -> set[float]:
    return {float(match[1]) for match in _NUMBERS.finditer(document) if match[1] is not None}


def read_again(document: bytes) -> bytes:
    """The JSON text that Redis shows of this one once it has read its numbers again."""

    def shown(match: re.Match[bytes]) -> bytes:
        token = match[1]
        if token is None or token.lstrip(b"-").isdigit():
            return match[0]
        return shortest(read_by_redis(token.decode())).encode()

    return _NUMBERS.sub(shown, document)


def _places(document: bytes, starts: Sequence[int]) -> list[list[str | int]]:
    """The names and indexes that lead to the values that begin here in the text, in order."""
    places: list[list[str | int]] = []
    stack: list[str | int] = []
    naming = False
    for match in _STEPS.finditer(document):
        token = match[0]
        if token in (b"{", b"["):
            stack.append("" if token == b"{" else 0)
            naming = token == b"{"
        elif token in (b"}", b"]"):
            stack.pop()
        elif token == b",":
            top = stack[-1]
            naming = isinstance(top, str)
            stack[-1] = top + 1 if isinstance(top, int) else top
        elif token == b":":
            naming = False
        elif naming:
            stack[-1] = from_json(token)
        elif match.start() == starts[len(places)]:
            places.append(list(stack))
            if len(places) == len(starts):
                break
    return places
