"""Doubles on their way into RedisJSON, so that not one bit changes.

RedisJSON 2.8 rounds some texts wrongly: one in five doubles with 17 digits comes out one unit in the last place off. It
prints every double right. Here are its reader and its printer, and for every finite double a text, at times with an
increment, by which both RedisJSON 2.8 and an exact reader arrive at that double.

It lasts while the value stays in memory or in commands: to load a snapshot, Redis prints and reads every document anew.
"""

import re
from collections.abc import Container, Sequence
from decimal import Decimal
from math import inf, isfinite, nextafter
from typing import NamedTuple

_NUMBER = re.compile(r"(-?)(0|[1-9][0-9]*)(?:\.([0-9]+))?(?:[eE]([+-]?[0-9]+))?")
_U64_MAX = 2**64 - 1
_POWERS = tuple(float(f"1e{exponent}") for exponent in range(309))
_MORE_DIGITS = ("%.16e", "%.17e", "%.18e", "%.19e")
_PLAIN = 16
"""A text so short holds 15 digits and a point: whole number and power of ten are exact, so their quotient is right."""


class RedisNumber(NamedTuple):
    """How a double gets into RedisJSON.

    Args:
        text: its place in the JSON text.
        increment: what JSON.NUMINCRBY then adds to arrive at the double; None if the text says it all.
    """

    text: str
    increment: str | None = None


def needs_care(value: float) -> bool:
    """Whether RedisJSON might misread a finite double's shortest text."""
    text = repr(value)
    return len(text) > _PLAIN or "e" in text


def text_for_redis(value: float, taken: Container[float] = ()) -> RedisNumber:
    """How RedisJSON, and an exact reader as well, arrive at exactly this double.

    Args:
        value: any finite double.
        taken: doubles that the text must not stand for if there is an increment; see `path_by_number`.
    """
    text = exact_text(value)
    return _in_two_steps(value, taken) if text is None else RedisNumber(text)


def exact_text(value: float) -> str | None:
    """A text that RedisJSON and an exact reader both read as this finite double, the shortest if it will do."""
    text = repr(value)
    if "e" not in text:
        if len(text) <= _PLAIN:
            return text
        whole, _, fraction = text.partition(".")
        if int(whole + fraction) / _POWERS[len(fraction)] == value:
            return text
    elif _read(text := shortest(value)) == value:
        return text
    if value < 0:
        magnitude = exact_text(-value)
        return None if magnitude is None else f"-{magnitude}"
    for form in _MORE_DIGITS:
        text = form % value
        if _read(text) == value:
            return text
    return None


def shortest(value: float) -> str:
    """A finite double as RedisJSON prints it."""
    text = repr(value)
    mantissa, e, power = text.partition("e")
    if not e:
        return text
    if power != "-05":
        return f"{mantissa}e{int(power)}"
    sign = "-" if value < 0 else ""
    return f"{sign}0.0000{mantissa.lstrip('-').replace('.', '')}"


def read_by_redis(text: str) -> float:
    """What RedisJSON 2.8 reads a JSON number with a point or an exponent as.

    This is serde_json without its feature `float_roundtrip`.

    Raises:
        ValueError: it is no JSON number.
        OverflowError: RedisJSON refuses it as too large.
    """
    found = _NUMBER.fullmatch(text)
    if found is None:
        raise ValueError(f"no JSON number: {text!r}")
    sign, whole, fraction, power = found.groups(default="")
    significand, taken = _take(0, whole)
    exponent = int(power or 0) + len(whole) - taken
    significand, taken = _take(significand, fraction)
    value = _scale(significand, exponent - taken)
    if value == inf:
        raise OverflowError(f"too large for RedisJSON: {text}")
    return -value if sign else value


def json_path(names: Sequence[str | int]) -> str | None:
    """The JSONPath of the one value at these object names and array indexes.

    None if RedisJSON 2.8 has no way to spell a name: one that begins with a space, has a backslash, or has both kinds
    of quotes.
    """
    steps = [_step(name) for name in names]
    return None if None in steps else f"${''.join(filter(None, steps))}"


def path_by_number(names: Sequence[str | int], number: float) -> str:
    """A JSONPath for where `json_path` finds none, of the value at these names and indexes.

    Args:
        names: where it is.
        number: what it is; nowhere else in the document may be a number that equals it as a double.
    """
    return f"${''.join(_step(name) or '.*' for name in names)}[?@=={Decimal(repr(number)):f}]"


def _in_two_steps(value: float, taken: Container[float]) -> RedisNumber:
    """A near neighbour's text and the way from there; the difference of such neighbours is exact, and so is the sum."""
    below = above = value
    while True:
        below, above = nextafter(below, -inf), nextafter(above, inf)
        for base in (below, above):
            if isfinite(base) and base not in taken:
                text, increment = exact_text(base), exact_text(value - base)
                if text is not None and increment is not None:
                    return RedisNumber(text, increment)


def _read(text: str) -> float:
    """`read_by_redis`, quick, for the texts that `exact_text` tries; infinity for what it refuses."""
    mantissa, _, power = text.partition("e")
    whole, _, fraction = mantissa.partition(".")
    significand, exponent = int(whole + fraction), int(power or 0) - len(fraction)
    if significand > _U64_MAX:
        significand, exponent = significand // 10, exponent + 1
    return _scale(significand, exponent)


def _take(significand: int, digits: str) -> tuple[int, int]:
    """Append digits while the result fits in 64 bits; return it and how many did."""
    for taken, digit in enumerate(digits):
        longer = significand * 10 + int(digit)
        if longer > _U64_MAX:
            return significand, taken
        significand = longer
    return significand, len(digits)


def _scale(significand: int, exponent: int) -> float:
    """Times a power of ten, rounded as often as serde_json rounds; infinity for what it refuses."""
    value = float(significand)
    while exponent < -308 and value:
        value, exponent = value / 1e308, exponent + 308
    if not value:
        return value
    if exponent < 0:
        return value / _POWERS[-exponent]
    return value * _POWERS[exponent] if exponent <= 308 else inf


def _step(name: str | int) -> str | None:
    if isinstance(name, int):
        return f"[{name}]"
    if name.startswith(" ") or "\\" in name or ("'" in name and '"' in name):
        return None
    quote = "'" if '"' in name else '"'
    return f"[{quote}{name}{quote}]"
