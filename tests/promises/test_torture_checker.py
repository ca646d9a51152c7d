"""The torture's checker on histories made by hand: it accepts what may happen and rejects what may not."""

from collections.abc import Sequence
from pathlib import Path

import pytest

from tests.torture.check import LINGER, Violation, check
from tests.torture.history import Event, Outcome, Read, Side, Window, Write, load, save

REDIS, MONGO = Side.REDIS, Side.MONGO


def write(
    value: str | None, start: float, end: float, outcome: Outcome = Outcome.ACKNOWLEDGED, *, replaced: str | None = None
) -> Write:
    """A write, or a delete, of the one key."""
    known = end if outcome is Outcome.ACKNOWLEDGED else None
    return Write("http-0", "PUT", "k", value, start, end, outcome, known, replaced)


def read(value: str | None, side: Side, start: float, *, final: bool = False) -> Read:
    """A look at the one key, half a second long."""
    return Read("http-1", "GET", "k", value, side, start, start + 0.5, str(value) if final else "")


def ended(redis: str | None, mongo: str | None, start: float = 50.0) -> list[Read]:
    """How both sides ended."""
    return [read(redis, REDIS, start, final=True), read(mongo, MONGO, start, final=True)]


ACCEPTED: dict[str, Sequence[Event]] = {
    "nothing happened": [read(None, REDIS, 1), *ended(None, None)],
    "the last acknowledged write is seen": [write("a", 1, 2), write("b", 3, 4), read("b", MONGO, 5), *ended("b", "b")],
    "of two that overlap, either may have come last": [write("a", 1, 3), write("b", 2, 4), *ended("a", "a")],
    "an older state is seen while the newer one is on its way": [
        write("a", 1, 2),
        write("b", 3, 9),
        read("a", MONGO, 4),
    ],
    "a queued write is not there yet": [write("a", 1, 2), write("b", 3, 4, Outcome.QUEUED), read("a", MONGO, 5)],
    "a queued write was lost": [write("a", 1, 2), write("b", 3, 4, Outcome.QUEUED), *ended("a", "a")],
    "a write that nobody answered comes late": [write("b", 1, 2, Outcome.UNKNOWN), write("a", 3, 4), *ended("b", "b")],
    "a delete that nobody answered comes late": [
        write(None, 1, 2, Outcome.UNKNOWN),
        write("a", 3, 4),
        *ended(None, None),
    ],
    "a deleted document is gone": [write("a", 1, 2), write(None, 3, 4), read(None, REDIS, 5), *ended(None, None)],
    "a deleted document is back in MongoDB for a moment": [
        write("a", 1, 2),
        write(None, 3, 4),
        read("a", MONGO, 5),
        read("a", MONGO, 6),
        *ended(None, None),
    ],
    "so it is when another state was deleted than the one that comes back": [
        write("a", 1, 2),
        write("b", 3, 4),
        write(None, 5, 6, Outcome.QUEUED),
        read("a", MONGO, 7),
        *ended(None, None),
    ],
    "a refused write is seen in Redis before it is rolled back": [
        write("a", 1, 2),
        write("b", 3, 6, Outcome.REFUSED),
        read("b", REDIS, 4),
        *ended("a", "a"),
    ],
    "a refused delete is seen in Redis before it is rolled back": [
        write("a", 1, 2),
        write(None, 3, 6, Outcome.REFUSED),
        read(None, REDIS, 4),
        *ended("a", "a"),
    ],
    "a refused write is in MongoDB for a moment": [
        write("a", 1, 2, Outcome.REFUSED),
        read("a", MONGO, 3),
        *ended(None, None),
    ],
    "what MongoDB can't hold is seen in Redis": [
        write("a", 1, 2, Outcome.POISON),
        read("a", REDIS, 9),
        *ended(None, None),
    ],
    "If-Match replaces what is there": [write("a", 1, 2), write("b", 3, 4, replaced="a"), *ended("b", "b")],
}

REJECTED: dict[str, tuple[int, Sequence[Event], int]] = {
    "an acknowledged write isn't in MongoDB": (1, [write("a", 1, 2), write("b", 3, 4), read("a", MONGO, 5)], 3),
    "an acknowledged write isn't seen through the API": (
        1,
        [write("a", 1, 2), write("b", 3, 4), read("a", REDIS, 5)],
        3,
    ),
    "a first acknowledged write isn't in MongoDB": (2, [write("a", 1, 2), read(None, MONGO, 3)], 2),
    "an acknowledged write is lost": (2, [write("a", 1, 2), write("b", 3, 4), *ended("a", "a")], 3),
    "an acknowledged document is gone": (2, [write(None, 1, 2), write("a", 3, 4), *ended(None, None)], 3),
    "a delete comes back": (3, [write("a", 1, 2), write(None, 3, 4), read("a", REDIS, 9)], 3),
    "a delete stays undone in MongoDB": (
        3,
        [write("a", 1, 2), write(None, 3, 4), read("a", MONGO, 5), read("a", MONGO, 26)],
        4,
    ),
    "MongoDB goes back": (
        4,
        [
            write("a", 1, 2, Outcome.QUEUED),
            write("b", 3, 4, Outcome.QUEUED),
            read("b", MONGO, 5),
            read("a", MONGO, 6),
        ],
        4,
    ),
    "the sides differ": (5, [write("a", 1, 3), write("b", 2, 4), *ended("a", "b")], 4),
    "nobody wrote it": (5, [read("x", REDIS, 1)], 1),
    "it is seen before it was written": (5, [write("a", 9, 10), read("a", REDIS, 1)], 2),
    "nothing was written, and it is there": (7, [write("a", 1, 2, Outcome.NOTHING), read("a", REDIS, 3)], 2),
    "it was refused, and MongoDB holds it": (7, [write("a", 1, 3, Outcome.REFUSED), read("a", MONGO, 2)], 2),
    "it was refused, and stays in MongoDB": (
        7,
        [write("a", 1, 2, Outcome.REFUSED), read("a", MONGO, 3), read("a", MONGO, 24)],
        3,
    ),
    "it was refused, and not rolled back": (7, [write("a", 1, 2, Outcome.REFUSED), read("a", REDIS, 3)], 2),
    "a refused delete is there": (2, [write("a", 1, 2), write(None, 3, 4, Outcome.REFUSED), read(None, REDIS, 5)], 2),
    "what MongoDB can't hold stays in Redis": (7, [write("a", 1, 2, Outcome.POISON), *ended("a", None)], 2),
    "a write that nobody answered comes far too late": (
        2,
        [write("a", 1, 2, Outcome.UNKNOWN), write("b", 3 + LINGER, 4 + LINGER), *ended("a", "a", 5 + LINGER)],
        3,
    ),
    "two replaced the same state": (
        1,
        [write("a", 1, 2), write("b", 3, 6, replaced="a"), write("c", 4, 5, replaced="a")],
        2,
    ),
}


@pytest.mark.parametrize("name", ACCEPTED)
def test_what_may_happen_is_accepted(name: str) -> None:
    assert check(ACCEPTED[name]) == []


@pytest.mark.parametrize("name", REJECTED)
def test_what_may_not_happen_is_rejected_with_the_few_events_that_show_it(name: str) -> None:
    promise, history, shown = REJECTED[name]
    noise: list[Event] = [write("z", 0.1, 0.2), write(None, 0.3, 0.4, Outcome.NOTHING), read("z", MONGO, 0.3)]
    violation = check([*history, *noise])[0]
    assert violation.promise == promise
    assert len(violation.history) == shown
    assert set(map(id, violation.history)) <= set(map(id, history)), "noise is left out"
    assert check(violation.history), "what is shown shows it"


def test_going_back_is_excused_in_redis_alone_and_only_until_it_is_ready_again() -> None:
    history: list[Event] = [write("a", 1, 2), write("b", 3, 4)]
    lost = [Window(4.5, 6.0)]
    assert check([*history, read("a", REDIS, 5)], lost) == []
    assert violated([*history, read("a", MONGO, 5)], lost) == [1]
    assert violated([*history, read("a", REDIS, 7)], lost) == [1]
    assert violated([*history, *ended("a", "a", 5)], lost) == [2], "how it ends is never excused"


def test_a_plain_delete_may_go_unnoticed_only_while_nothing_captures_it() -> None:
    delete = Write("plain-0", "DEL", "k", None, 3, 4, Outcome.QUEUED)
    history: list[Event] = [write("a", 1, 2), delete, *ended(None, "a")]
    assert check(history, uncaptured=[Window(2.5, 5)]) == []
    assert violated(history) == [5]


def test_a_write_that_was_found_committed_later_counts_from_then_on() -> None:
    late = write("b", 3, 4, Outcome.QUEUED)
    late.acknowledged = 8.0
    assert check([write("a", 1, 2), late, read("a", MONGO, 7)]) == []
    assert violated([write("a", 1, 2), late, read("a", MONGO, 9)]) == [1]


def test_keys_are_judged_alone() -> None:
    other = Write("http-0", "PUT", "other", "b", 3, 4, Outcome.ACKNOWLEDGED, 4)
    assert check([write("a", 1, 2), other, read("a", MONGO, 5)]) == []


def test_a_history_is_saved_and_loaded(tmp_path: Path) -> None:
    events: list[Event | Window] = [write("a", 1, 2), read("a", MONGO, 3), Window(4, 5, "lose all")]
    save(tmp_path / "history.jsonl", events)
    assert load(tmp_path / "history.jsonl") == events


def violated(history: Sequence[Event], lost: Sequence[Window] = ()) -> list[int]:
    """The promises that were broken."""
    found: list[Violation] = check(history, lost)
    return [violation.promise for violation in found]
