"""How it is, in one sentence: the first of these that holds."""

from collections.abc import Iterator, Sequence
from dataclasses import dataclass

from service.page import parts
from service.page.parts import Level
from service.watch.gather_state import Inspection, MappingState

BEHIND = 1.0
"""Seconds that the oldest write may wait before that is said."""


@dataclass(frozen=True, slots=True)
class Sentence:
    """How it is.

    Args:
        kind: which sentence, without its numbers.
        level: how bad it is.
        text: the sentence.
    """

    kind: str
    level: Level
    text: str


@dataclass(frozen=True, slots=True)
class Measured:
    """What the sentence tells beside what was inspected.

    Args:
        write_seconds: how long a write through this API takes now; None if there are none.
        batch_seconds: how long MongoDB takes for a batch of writes now; None if there are none.
        caught_up: how many writes waited until MongoDB answered again, a moment ago; None if none had to.
    """

    write_seconds: float | None = None
    batch_seconds: float | None = None
    caught_up: int | None = None


def sentence(inspection: Inspection, measured: Measured, *, backlog_limit: int) -> Sentence:
    """The sentence.

    Args:
        inspection: how everything is doing.
        measured: what was measured.
        backlog_limit: uncommitted entries from which on nothing more is written.
    """
    states = inspection.mappings
    if "redis" in inspection.errors:
        return Sentence("redis-away", Level.BAD, "Redis does not answer: no write is taken.")
    if "mongo" in inspection.errors:
        return Sentence("mongo-away", Level.BAD, f"MongoDB does not answer: {_wait(waiting(states))}.")
    worst = min(_troubles(states, backlog_limit), key=_by_level, default=None)
    if worst is not None:
        return worst
    if measured.caught_up is not None:
        return Sentence("caught-up", Level.OK, f"MongoDB answers again and has {_all_that_waited(measured.caught_up)}.")
    return _well(measured, waiting(states))


def waiting(states: Sequence[MappingState]) -> int:
    """How many writes wait for MongoDB, as far as is known."""
    return sum(state.backlog.entries for state in states if state.backlog is not None)


def _troubles(states: Sequence[MappingState], backlog_limit: int) -> Iterator[Sentence]:
    for state in states:
        prefix, backlog = state.mapping.prefix, state.backlog
        capture, committer = parts.capture(state), parts.committer(state)
        if capture.level is not Level.OK:
            yield Sentence("capture", Level.BAD, f"Writes to {prefix} are not captured: {capture.reason}.")
        if backlog is None:
            continue
        wait = _wait(backlog.entries)
        if backlog.worker is None:
            yield Sentence("no-worker", Level.BAD, f"No worker commits {prefix}: {wait}.")
        elif backlog.worker.state == "restoring":
            yield Sentence("restoring", Level.WAIT, f"Redis is given back what it lost of {prefix}: {wait}.")
        elif backlog.worker.state != "committing":
            yield Sentence(committer.state, committer.level, f"Commits of {prefix} are held up: {wait}.")
        elif backlog.entries >= backlog_limit:
            yield Sentence(
                "full", Level.BAD, f"Too many writes to {prefix} wait for MongoDB, no more are taken: {wait}."
            )
        elif backlog.lag > BEHIND:
            text = f"MongoDB is behind with {prefix}: {wait}, the oldest for {seconds_text(backlog.lag)}."
            yield Sentence("behind", Level.WAIT, text)
        elif backlog.worker.to_warm:
            done, total = backlog.worker.warmed, backlog.worker.to_warm
            text = f"Writes reach MongoDB; Redis has {done:,} of about {total:,} documents of {prefix} again."
            yield Sentence("warming", Level.WAIT, text)
        elif backlog.worker.aside:
            text = f"All writes reach MongoDB but {backlog.worker.aside:,} of {prefix}, which it does not take now."
            yield Sentence("aside", Level.WAIT, text)


def _well(measured: Measured, wait: int) -> Sentence:
    if measured.write_seconds is not None:
        text = f"All writes reach MongoDB in {seconds_text(measured.write_seconds)}."
    elif measured.batch_seconds is not None:
        text = f"All writes reach MongoDB, which takes {seconds_text(measured.batch_seconds)} for a batch of them."
    else:
        text = "All writes reach MongoDB." if wait else "All writes are in MongoDB."
    return Sentence("well", Level.OK, text)


def _by_level(one: Sentence) -> int:
    return (Level.BAD, Level.WAIT, Level.OK).index(one.level)


def _wait(count: int) -> str:
    return {0: "no write waits", 1: "1 write waits"}.get(count, f"{count:,} writes wait")


def _all_that_waited(count: int) -> str:
    return "the write that waited" if count == 1 else f"all {count:,} writes that waited"


def seconds_text(seconds: float) -> str:
    """A time in words of the size that it has."""
    return f"{max(1, round(seconds * 1000))} ms" if seconds < 1 else f"{seconds:.1f} s"
