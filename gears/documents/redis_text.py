"""The text that RedisJSON reads as exactly the numbers that are meant; see `gears.documents.numbers`."""

import re
from collections.abc import Sequence

from pydantic_core import from_json, to_json

from gears.documents.numbers import read_by_redis, shortest, text_for_redis

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
    if increments and len(document) < _LARGE:
        text, increments = _rewritten(to_json(from_json(document)))  # each name once, so that each path is one number's
    paths = _paths(text, [place for place, _ in increments])
    return (
        text,
        *(
            part
            for path, (_, each) in zip(paths, increments, strict=True)
            for amount in each
            for part in (path, amount)
        ),
    )


def _rewritten(document: bytes) -> tuple[bytes, list[tuple[int, Sequence[str]]]]:
    """The text with all numbers as Redis reads them, and where numbers stand in it that take increments."""
    text = bytearray()
    increments: list[tuple[int, Sequence[str]]] = []
    copied = 0
    for match in _NUMBERS.finditer(document):
        token = match[1]
        if token is None or (len(token) < 17 and b"e" not in token and b"E" not in token):
            continue
        if token.lstrip(b"-").isdigit():
            continue  # an integer
        number = text_for_redis(float(token))
        text += document[copied : match.start()]
        if number.increments:
            increments.append((len(text), number.increments))
        text += number.text.encode()
        copied = match.end()
    text += document[copied:]
    return bytes(text), increments


def read_again(document: bytes) -> bytes:
    """The JSON text that Redis shows of this one once it has read its numbers again."""

    def shown(match: re.Match[bytes]) -> bytes:
        token = match[1]
        if token is None or token.lstrip(b"-").isdigit():
            return match[0]
        return shortest(read_by_redis(token.decode())).encode()

    return _NUMBERS.sub(shown, document)


def _paths(document: bytes, places: Sequence[int]) -> list[str]:
    """The JSONPaths of the values that stand in these places, in order."""
    paths: list[str] = []
    stack: list[str | int] = []
    naming = False
    for match in _STEPS.finditer(document) if places else ():
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
        elif match.start() == places[len(paths)]:
            paths.append(json_path(stack))
            if len(paths) == len(places):
                break
    return paths


def json_path(steps: Sequence[str | int]) -> str:
    """The JSONPath of a value, spelled as RedisJSON takes it for any name.

    Args:
        steps: names in objects and indexes in arrays, from the outermost on.
    """
    return "$" + "".join(f"[{step}]" if isinstance(step, int) else f'["{_escaped(step)}"]' for step in steps)


def _escaped(name: str) -> str:
    return name.replace("\\", "\\\\").replace('"', '\\"')
