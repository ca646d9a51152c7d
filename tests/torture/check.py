"""The checker: did the promises hold, given what was done and what was seen?

Each key is judged alone. A write takes effect at one moment between its start and its end; when nobody answered, within
`LINGER` seconds more. A state that was seen must come from a write that no acknowledged write had surely replaced: none
that started after that one's end and was acknowledged before the look. Nothing else is assumed of the order of writes,
so what it objects to is wrong whatever the timing was.
"""

from bisect import bisect_right
from collections import defaultdict
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass

from tests.torture.history import Event, Outcome, Read, Side, Window, Write

LINGER = 60.0
"""Seconds after which a write that nobody answered can't happen any more: what might carry it is dead."""

LATE = 20.0
"""Seconds for which MongoDB may show a document that was deleted: a committer that was frozen in the midst of a write
may bring it back, and deletes it again; if it is told that it lost its lease before that, it asks for a sweep, which
deletes it, once the deadline of what was under way has passed and faults let it."""

NEVER = frozenset({Outcome.NOTHING, Outcome.REFUSED, Outcome.POISON})
"""Outcomes of writes that MongoDB must never hold."""


@dataclass(frozen=True, slots=True)
class Violation:
    """A promise that was broken.

    Args:
        promise: its number; 0 for an answer that no client may get.
        what: what is wrong.
        key: the document's id.
        history: the fewest events that show it, in the order of their beginnings.
    """

    promise: int
    what: str
    key: str
    history: tuple[Event, ...]


def check(
    events: Iterable[Event],
    lost: Sequence[Window] = (),
    uncaptured: Sequence[Window] = (),
    doubled: Sequence[Window] = (),
) -> list[Violation]:
    """Decide promises 1 to 5, and that a refusal changes nothing.

    Args:
        events: the history; each write's value is unique.
        lost: when Redis may have lost something and was not yet ready again.
        doubled: when MongoDB may have held a document twice, having lost its unique index.
        uncaptured: when a plain client's delete may have gone unnoticed, by design.

    Returns:
        What is wrong, once for the same writes however often it was seen.
    """
    by_key: dict[str, list[Event]] = defaultdict(list)
    for event in events:
        by_key[event.key].append(event)
    found: dict[object, Violation] = {}
    for key, about_key in sorted(by_key.items()):
        for violation in _Key(key, about_key, lost, uncaptured, doubled).violations():
            writes = tuple(id(event) for event in violation.history if isinstance(event, Write))
            found.setdefault((violation.promise, key, writes), violation)
    return list(found.values())


class _Latest:
    """Of the writes known by some time, the last one in some order.

    Args:
        known: writes, each with the time from which it counts.
        order: gives a write's place in that order.
    """

    def __init__(self, known: Iterable[tuple[float, Write]], order: Callable[[Write], float]) -> None:
        self._times: list[float] = []
        self._writes: list[Write] = []
        for time, write in sorted(known, key=lambda pair: pair[0]):
            last = self._writes[-1] if self._writes and order(self._writes[-1]) >= order(write) else write
            self._times.append(time)
            self._writes.append(last)

    def by(self, time: float) -> Write | None:
        index = bisect_right(self._times, time)
        return self._writes[index - 1] if index else None


class _Key:
    def __init__(
        self,
        key: str,
        events: Sequence[Event],
        lost: Sequence[Window],
        uncaptured: Sequence[Window],
        doubled: Sequence[Window],
    ) -> None:
        self._key = key
        self._lost = lost
        self._uncaptured = uncaptured
        self._doubled = doubled
        self._writes = [event for event in events if isinstance(event, Write)]
        self._reads = sorted((event for event in events if isinstance(event, Read)), key=lambda read: read.start)
        self._by_value = {write.value: write for write in self._writes if write.value is not None}
        self._deletes = [w for w in self._writes if w.value is None and w.outcome not in NEVER]
        self._refused_deletes = [w for w in self._writes if w.value is None and w.outcome is Outcome.REFUSED]
        acknowledged = [(w.acknowledged, w) for w in self._writes if w.acknowledged is not None]
        in_mongo = [
            (read.end, self._by_value[read.value])
            for read in self._reads
            if read.side is Side.MONGO and read.value in self._by_value
        ]
        self._acknowledged = _Latest(acknowledged, _starts)
        self._stored = _Latest([(time, write) for time, write in acknowledged if write.value is not None], _starts)
        self._in_mongo = _Latest(acknowledged + in_mongo, _starts)
        self._deleted = _Latest([(delete.start, delete) for delete in self._deletes], _ends)

    def violations(self) -> Iterable[Violation]:
        for read in self._reads:
            yield from self._absent(read) if read.value is None else self._present(read)
        yield from self._replaced_twice()
        yield from self._diverged()

    def _present(self, read: Read) -> Iterable[Violation]:
        write = self._by_value.get(read.value or "")
        if write is None:
            yield self._violation(5, "a state that nobody wrote", read)
        elif write.start > read.end:
            yield self._violation(5, "a state from the future", write, read)
        elif self._forbidden(write, read):
            what = f"a write that was answered with {write.outcome!r} is there"
            yield self._violation(7, what, write, read, *self._again(write, read))
        elif read.side is Side.MONGO or not self._excused(read):
            newest = (self._in_mongo if read.side is Side.MONGO else self._acknowledged).by(read.start)
            if newest is not None and newest.start >= _ends(write):
                yield from self._replaced(newest, write, read)

    def _replaced(self, newest: Write, write: Write, read: Read) -> Iterable[Violation]:
        """A state was seen that had been replaced before."""
        if not read.final and any(window.touches(read.start, read.end) for window in self._doubled):
            return
        deleted = any(d.start <= read.end and _ends(d) >= newest.start for d in self._deletes)
        if not (deleted and self._late(write, read)):
            again = self._again(write, read)
            yield self._violation(*self._older(newest, read), write, newest, *self._witness(newest, read), read, *again)

    def _late(self, write: Write, read: Read) -> bool:
        """Whether it may have been written by a committer that was held up, for a moment only: it isn't seen again."""
        return read.side is Side.MONGO and not read.final and not self._again(write, read)

    def _again(self, write: Write, read: Read) -> list[Read]:
        """When it was seen in MongoDB after the moment for which it may be."""
        later = (r for r in self._reads if r.side is read.side is Side.MONGO and r.value == write.value)
        return [r for r in later if r.start > read.start + LATE][:1]

    def _forbidden(self, write: Write, read: Read) -> bool:
        if write.outcome not in NEVER:
            return False
        refused = write.outcome is Outcome.REFUSED and read.start > write.end
        if read.side is Side.MONGO or read.final or write.outcome is Outcome.NOTHING:
            return not (refused and self._late(write, read))
        return refused and not self._excused(read)

    def _older(self, newest: Write, read: Read) -> tuple[int, str]:
        if newest.acknowledged is None or newest.acknowledged > read.start:
            return 4, "MongoDB went back to an older state"
        if newest.value is None:
            return 3, "an acknowledged delete did not stay deleted"
        if read.final:
            return 2, "an acknowledged write is lost"
        return 1, "an older state is seen after a newer one was acknowledged"

    def _witness(self, newest: Write, read: Read) -> Iterable[Event]:
        """Who saw the newer state in MongoDB, if that is all that is known of it."""
        if newest.acknowledged is None or newest.acknowledged > read.start:
            yield next(r for r in self._reads if r.side is Side.MONGO and r.value == newest.value)

    def _absent(self, read: Read) -> Iterable[Violation]:
        if read.side is Side.REDIS and (self._excused(read) or self._being_deleted(read)):
            return
        stored = self._stored.by(read.start)
        last = self._deleted.by(read.end)
        if stored is not None and (last is None or stored.start >= _ends(last)):
            yield self._violation(
                2, "an acknowledged document is gone", *([] if last is None else [last]), stored, read
            )

    def _being_deleted(self, read: Read) -> bool:
        """Whether a delete that was refused in the end hadn't been rolled back yet."""
        return any(delete.start <= read.end and read.start <= delete.end for delete in self._refused_deletes)

    def _excused(self, read: Read) -> bool:
        return not read.final and any(window.touches(read.start, read.end) for window in self._lost)

    def _replaced_twice(self) -> Iterable[Violation]:
        """Two acknowledged writes can't both have replaced the same state."""
        winners: dict[str, Write] = {}
        for write in self._writes:
            if write.replaced is None or write.acknowledged is None:
                continue
            if (other := winners.setdefault(write.replaced, write)) is not write:
                yield self._violation(1, "two writes replaced the same state by If-Match", other, write)

    def _diverged(self) -> Iterable[Violation]:
        final = {read.side: read for read in self._reads if read.final}
        if len(final) < len(Side):
            return
        redis, mongo = final[Side.REDIS], final[Side.MONGO]
        if redis.final != mongo.final and not (redis.value is None and self._unnoticed()):
            about = {redis.value, mongo.value} - {None}
            writes = [write for write in self._writes if write.value in about]
            yield self._violation(5, "Redis and MongoDB differ in the end", *writes, redis, mongo)

    def _unnoticed(self) -> bool:
        return any(
            window.touches(delete.start, delete.end)
            for delete in self._deletes
            if delete.client.startswith("plain")
            for window in self._uncaptured
        )

    def _violation(self, promise: int, what: str, *history: Event) -> Violation:
        return Violation(promise, what, self._key, tuple(sorted(history, key=lambda event: event.start)))


def _starts(write: Write) -> float:
    return write.start


def _ends(write: Write) -> float:
    """When the write has surely taken effect, if it does at all."""
    return write.end + (LINGER if write.outcome is Outcome.UNKNOWN else 0.0)
