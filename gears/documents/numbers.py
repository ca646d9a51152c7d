"""Doubles through RedisJSON's parser, which reads about one in ten of 17 digits a unit in the last place off.

It is serde_json's without the feature `float_roundtrip` (https://github.com/serde-rs/json, `f64_from_parts` in
`src/de.rs`): the digits become an integer of 64 bits, those beyond are dropped, and that is rounded to a double, then
multiplied or divided by a power of ten. The texts made here are read as the same double by that parser and by an exact
one, so that nothing need be known of the server.
"""

import re
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from math import inf, isfinite, nextafter, ulp

_UINT64 = 2**64
_POWERS = [float(f"1e{exponent}") for exponent in range(309)]
_NUMBER = re.compile(r"(-?)(\d+)(?:\.(\d+))?(?:[eE]([+-]?\d+))?")

_NEAR = 64
"""How many doubles around one are tried as its neighbour."""


@dataclass(frozen=True, slots=True)
class NumberText:
    """How to have Redis read a double.

    Args:
        text: JSON text of a double.
        increments: texts of doubles to add to it, one after the other.
    """

    text: str
    increments: Sequence[str] = ()


def shortest(value: float) -> str:
    """A finite double as RedisJSON prints it: the fewest digits that tell it from others, laid out as by Rust's `ryu`.

    Source: https://github.com/dtolnay/ryu, `src/pretty/mod.rs`.
    """
    text = repr(value)
    if "e" not in text and len(text) < 17:
        return text
    sign = "-" if text[0] == "-" else ""
    mantissa, _, power = text.lstrip("-").partition("e")
    whole, _, fraction = mantissa.partition(".")
    fraction = fraction if fraction != "0" else ""
    exponent = int(power or 0) - len(fraction)
    digits = (whole + fraction).lstrip("0")
    stripped = digits.rstrip("0")
    exponent += len(digits) - len(stripped)
    digits, point = stripped, len(stripped) + exponent
    if exponent >= 0 and point <= 16:
        return f"{sign}{digits}{'0' * exponent}.0"
    if 0 < point <= 16:
        return f"{sign}{digits[:point]}.{digits[point:]}"
    if -5 < point <= 0:
        return f"{sign}0.{'0' * -point}{digits}"
    return f"{sign}{digits[0]}{'.' if digits[1:] else ''}{digits[1:]}e{point - 1}"


def read_by_redis(text: str) -> float:
    """The double that RedisJSON reads; infinite where it refuses the number.

    Args:
        text: JSON text of a number with a point or an exponent.
    """
    match = _NUMBER.fullmatch(text)
    if match is None:
        raise ValueError(f"{text!r} is no number")
    sign, whole, fraction, power = match.groups(default="")
    significand, exponent = int(whole + fraction), int(power or 0) - len(fraction)
    if significand >= _UINT64:
        significand, exponent = _first_digits(whole, fraction, int(power or 0))
    value = _from_parts(significand, exponent)
    return -value if sign else value


def _first_digits(whole: str, fraction: str, exponent: int) -> tuple[int, int]:
    """The digits that fit 64 bits, and the power of ten that goes with them."""
    significand = 0
    for digits, dropped, taken in ((whole, 1, 0), (fraction, 0, -1)):
        for n, digit in enumerate(digits):
            more = significand * 10 + int(digit)
            if more >= _UINT64:
                exponent += dropped * (len(digits) - n)
                break
            significand = more
            exponent += taken
    return significand, exponent


def text_for_redis(value: float) -> NumberText:
    """How to have Redis read this finite double."""
    text = shortest(value)
    if _is_plain(text) or read_by_redis(text) == value:
        return NumberText(text)
    direct = _direct(value)
    if direct is not None:
        return NumberText(direct)
    return _by_increment(value)


def _is_plain(text: str) -> bool:
    """Whether all of it is exact on the way: 15 digits or fewer, and a power of ten that is a double."""
    return "e" not in text and len(text) < 17


def _from_parts(significand: int, exponent: int) -> float:
    value = float(significand)
    while abs(exponent) > 308:
        if value == 0.0:
            return value
        if exponent > 0:
            return inf
        value /= 1e308
        exponent += 308
    return value * _POWERS[exponent] if exponent >= 0 else value / _POWERS[-exponent]


def _direct(value: float) -> str | None:
    """A text that is read as this double by both kinds of parsers."""
    size = abs(value)
    for text in _candidates(size):
        if read_by_redis(text) == size and float(text) == size:
            return "-" + text if value < 0 else text
    return None


def _candidates(size: float) -> Iterator[str]:
    """Texts with the exact value's digits, rounded to more and fewer of them, and with more zeros at the end."""
    for digits in (17, 18, 19, 16, 15, 20):
        mantissa, _, power = f"{size:.{digits - 1}e}".partition("e")
        significand, exponent = int(mantissa.replace(".", "")), int(power) - digits + 1
        yield f"{significand}e{exponent}"
        while significand * 10 < _UINT64:
            significand, exponent = significand * 10, exponent - 1
            yield f"{significand}e{exponent}"


def _by_increment(value: float) -> NumberText:
    """A neighbour that has a text, and the difference, which has one, too."""
    below = above = value
    for _ in range(_NEAR):
        below, above = nextafter(below, -inf), nextafter(above, inf)
        for neighbour in (below, above):
            difference = value - neighbour
            if not isfinite(neighbour) or neighbour + difference != value:
                continue
            text, increment = _readable(neighbour), _readable(difference)
            if text is not None and increment is not None:
                return NumberText(text, (increment,))
    raise AssertionError(f"{value!r} has no neighbour within {_NEAR * ulp(value)} that has a text")


def _readable(value: float) -> str | None:
    text = shortest(value)
    return text if read_by_redis(text) == value else _direct(value)
