"""Doubles into RedisJSON and back, bit for bit; its reader, printer and paths beside the real ones."""

import json
import struct
import sys
from collections.abc import Callable, Sequence
from math import isfinite, ldexp
from random import Random
from typing import Any

import pytest
from hypothesis import example, given
from hypothesis import strategies as st
from redis.asyncio import Redis
from redis.exceptions import ResponseError

from gears.documents.numbers import (
    RedisNumber,
    json_path,
    needs_care,
    path_by_number,
    read_by_redis,
    shortest,
    text_for_redis,
)

finite = st.floats(allow_nan=False, allow_infinity=False)
anything = finite | st.floats(-1000, 1000) | st.floats(-1e-307, 1e-307) | st.integers(-1074, 1023).map(lambda n: 2.0**n)
Name = str | int


def bits(value: float) -> bytes:
    return struct.pack("<d", value)


def any_bits(random: Random) -> float:
    """A double, every finite one as likely as any other."""
    while True:
        value: float = struct.unpack("<d", random.randbytes(8))[0]
        if isfinite(value):
            return value


def thousands(random: Random) -> float:
    return random.uniform(-1000, 1000)


def extreme(random: Random) -> float:
    sign, step = random.choice((-1, 1)), random.getrandbits(10)
    return sign * random.choice(
        (
            ldexp(1, random.randint(-1074, 1023)),
            ldexp(random.getrandbits(52), -1074),
            sys.float_info.max * (1 - step * 2.0**-53),
            float(f"1e{random.randint(-323, 308)}"),
        )
    )


def any_text(random: Random) -> str:
    """A JSON number with a point or an exponent."""

    def digits(most: int) -> str:
        return "".join(random.choices("0123456789", k=random.randint(1, most)))

    whole = random.choice(("0", digits(25).lstrip("0") or "0", "1844674407370955161" + digits(2)))
    fraction = random.choice(("", "." + digits(25), "." + "0" * random.randrange(20) + digits(20)))
    power = "" if fraction and random.random() < 0.4 else f"e{random.choice((1, 1, 10)) * random.randint(-345, 315)}"
    return random.choice(("", "-")) + whole + fraction + power


@pytest.mark.parametrize(
    ("value", "text"),
    [
        (0.0, "0.0"),
        (-0.0, "-0.0"),
        (5.0, "5.0"),
        (-2.5, "-2.5"),
        (1000000000000000.0, "1000000000000000.0"),
        (1e16, "1e16"),
        (-1.2345678901234568e17, "-1.2345678901234568e17"),
        (1.5e300, "1.5e300"),
        (0.0001, "0.0001"),
        (0.00001, "0.00001"),
        (-1.25e-5, "-0.0000125"),
        (1.234e-6, "1.234e-6"),
        (1e-7, "1e-7"),
        (5e-324, "5e-324"),
        (sys.float_info.max, "1.7976931348623157e308"),
    ],
)
def test_the_shortest_text(value: float, text: str) -> None:
    assert shortest(value) == text


@pytest.mark.parametrize(
    ("text", "value"),
    [
        ("12.917521550408111", 12.917521550408113),
        ("0e99999999999", 0.0),
        ("-1e-99999999999", -0.0),
        ("-0", -0.0),
        ("1e-400", 0.0),
        ("1E+05", 1e5),
        ("100000000000000000000e288", 1e308),
        ("0.00000000000000000000000000001e330", 1e301),
        ("17976931348623157e292", sys.float_info.max),
    ],
)
def test_what_redis_reads(text: str, value: float) -> None:
    assert bits(read_by_redis(text)) == bits(value)


@pytest.mark.parametrize("text", ["1e309", "17976931348623158e292", "100000000000000000000e289", "1e99999999999"])
def test_what_redis_refuses(text: str) -> None:
    with pytest.raises(OverflowError):
        read_by_redis(text)


@pytest.mark.parametrize("text", ["", "-", ".5", "5.", "01.5", "+1.5", "1e", "NaN", "1.5 "])
def test_what_is_no_number(text: str) -> None:
    with pytest.raises(ValueError, match="no JSON number"):
        read_by_redis(text)


@given(anything)
@example(-0.0)
@example(sys.float_info.max)
@example(5e-324)
def test_every_double_has_a_way_into_redis(value: float) -> None:
    text, increment = text_for_redis(value)
    assert "." in text or "e" in text
    assert bits(read_by_redis(text)) == bits(float(text))
    if increment is None:
        assert bits(float(text)) == bits(value)
    else:
        assert float(increment) == read_by_redis(increment)
        assert bits(float(text) + float(increment)) == bits(value)


@given(anything)
def test_what_needs_no_care_is_read_right(value: float) -> None:
    assert bits(float(shortest(value))) == bits(value)
    if not needs_care(value):
        assert bits(read_by_redis(shortest(value))) == bits(value)


@pytest.mark.parametrize("value", [0.5, -123.75, 3.25e10, 0.0001])
def test_short_texts_need_no_care(value: float) -> None:
    assert not needs_care(value)
    assert text_for_redis(value) == RedisNumber(shortest(value))


def test_a_text_before_an_increment_stands_for_nothing_taken() -> None:
    random = Random(1)
    value = next(value for value in (thousands(random) for _ in range(10_000)) if text_for_redis(value).increment)
    taken: set[float] = set()
    for _ in range(20):
        text, increment = text_for_redis(value, taken)
        assert increment
        assert float(text) not in taken
        assert float(text) + float(increment) == value
        taken.add(float(text))


@pytest.mark.parametrize(
    ("names", "path"),
    [
        ([], "$"),
        (["a", 0, "b c", 12], '$["a"][0]["b c"][12]'),
        (["", "it's", 'say "x"', "$.[0]"], '$[""]["it\'s"][\'say "x"\']["$.[0]"]'),
        (["a\\b"], None),
        (["a", " b"], None),
        (["'\""], None),
    ],
)
def test_paths(names: Sequence[Name], path: str | None) -> None:
    assert json_path(names) == path


def test_paths_by_number() -> None:
    assert path_by_number(["a", " b", 3], 1.5e-7) == '$["a"].*[3][?@==0.00000015]'
    assert path_by_number(["\\"], -2e16) == "$.*[?@==-20000000000000000]"


@pytest.mark.parametrize(("kind", "count"), [(any_bits, 20_000), (thousands, 20_000), (extreme, 4_000)])
async def test_not_a_bit_changes_on_the_way(
    redis: Redis, new_id: str, kind: Callable[[Random], float], count: int
) -> None:
    random = Random(count)
    incremented = 0
    for _ in range(0, count, 400):
        values = [kind(random) for _ in range(400)]
        numbers = [text_for_redis(value) for value in values]
        async with redis.pipeline(transaction=True) as pipeline:
            pipeline.execute_command("JSON.SET", new_id, "$", f"[{','.join(number.text for number in numbers)}]")
            for index, number in enumerate(numbers):
                if number.increment is not None:
                    incremented += 1
                    pipeline.execute_command("JSON.NUMINCRBY", new_id, json_path([index]), number.increment)
            await pipeline.execute()
        printed = (await redis.execute_command("JSON.GET", new_id)).decode()
        assert printed == f"[{','.join(map(shortest, values))}]"
    await redis.delete(new_id)
    assert incremented


async def test_an_increment_leaves_a_double_a_double(redis: Redis, new_id: str) -> None:
    await redis.execute_command("JSON.SET", new_id, "$", "4.0")
    await redis.execute_command("JSON.NUMINCRBY", new_id, "$", "1")
    assert await redis.execute_command("JSON.GET", new_id) == b"5.0"
    await redis.delete(new_id)


async def test_texts_are_read_as_redis_reads_them(redis: Redis, new_id: str) -> None:
    random = Random(7)
    read: dict[str, float] = {}
    refused: list[str] = []
    for _ in range(10_000):
        text = any_text(random)
        try:
            read[text] = read_by_redis(text)
        except OverflowError:
            refused.append(text)
    await redis.execute_command("JSON.SET", new_id, "$", f"[{','.join(read)}]")
    printed = (await redis.execute_command("JSON.GET", new_id)).decode()
    assert printed == f"[{','.join(map(shortest, read.values()))}]"
    for text in refused[:100]:
        with pytest.raises(ResponseError, match="out of range"):
            await redis.execute_command("JSON.SET", new_id, "$", text)
    assert len(refused) > 100
    await redis.delete(new_id)


def nested(names: Sequence[Name], value: float, others: dict[str, Any]) -> Any:
    """A document with the value at these names and indexes, among others."""
    document: Any = value
    for name in reversed(names):
        document = [7.25] * name + [document, [7.25]] if isinstance(name, int) else others | {name: document}
    return document


async def test_a_path_leads_to_its_value_only(redis: Redis, new_id: str) -> None:
    random = Random(11)
    alphabet = "ab0 '\"\\.[]()*@$,:?-\t\n\x00\x1f\x7f\u00e9\u3000\u2028\ufeff\U0001f600"
    spelled = 0
    for _ in range(500):
        names: list[Name] = [
            random.randrange(3) if random.random() < 0.2 else "".join(random.choices(alphabet, k=random.randrange(5)))
            for _ in range(random.randrange(6))
        ]
        others = {"".join(random.choices(alphabet, k=2)): 7.25, "0": [7.25], "o": {"0": 7.25}}
        paths = [path for path in (json_path(names), path_by_number(names, 1.1)) if path]
        spelled += len(paths) == 2
        for path in paths:
            await redis.execute_command("JSON.SET", new_id, "$", json.dumps(nested(names, 1.1, others)))
            await redis.execute_command("JSON.NUMINCRBY", new_id, path, "0.5")
            found = await redis.execute_command("JSON.GET", new_id)
            assert json.loads(found) == nested(names, 1.6, others), path
    await redis.delete(new_id)
    assert 100 < spelled < 450
