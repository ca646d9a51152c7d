"""What happened: every operation of every client, and every state that was seen."""

import json
from collections.abc import Iterable
from dataclasses import asdict, dataclass
from enum import StrEnum
from pathlib import Path


class Outcome(StrEnum):
    """What a client knows of its write when it has the answer."""

    ACKNOWLEDGED = "acknowledged"
    """It is in MongoDB."""
    QUEUED = "queued"
    """It is in Redis and waits for MongoDB; lost if Redis loses its tail, or if it is refused."""
    POISON = "poison"
    """It is in Redis, MongoDB can't hold it, and a roll-back is due."""
    REFUSED = "refused"
    """It was in Redis, MongoDB refused it, and it has been rolled back."""
    NOTHING = "nothing"
    """Nothing was written."""
    UNKNOWN = "unknown"
    """Nobody answered: it may happen yet."""


class Side(StrEnum):
    """Where a state was seen."""

    REDIS = "redis"
    """Through a GET of the API, which asks MongoDB for what Redis doesn't hold, or what such an answer implies."""
    MONGO = "mongo"
    """In MongoDB, directly or through the API's list."""


@dataclass(slots=True)
class Write:
    """A write or delete.

    Args:
        client: who made it.
        kind: how, for people.
        key: the document's id.
        value: its unique tag; None for a delete.
        start: when it was sent, in seconds since the run began.
        end: when the answer came, or was given up.
        outcome: what the client knew then.
        acknowledged: when it was known to be in MongoDB; None when it never was.
        replaced: the tag that `If-Match` named; the write was made only if the document had it.
        token: its Sync-Token.
        detail: status and reason, for people.
    """

    client: str
    kind: str
    key: str
    value: str | None
    start: float
    end: float
    outcome: Outcome
    acknowledged: float | None = None
    replaced: str | None = None
    token: str = ""
    detail: str = ""


@dataclass(slots=True)
class Read:
    """A state that was seen.

    Args:
        client: who saw it.
        kind: how, for people.
        key: the document's id.
        value: the tag of the document; None when there was none.
        side: where.
        start: when it was asked for, in seconds since the run began.
        end: when the answer came.
        final: the whole document as JSON, when this is how it all ended; empty otherwise.
    """

    client: str
    kind: str
    key: str
    value: str | None
    side: Side
    start: float
    end: float
    final: str = ""


@dataclass(frozen=True, slots=True)
class Window:
    """A stretch of time.

    Args:
        start: its beginning, in seconds since the run began.
        end: its end.
        what: for people.
    """

    start: float
    end: float
    what: str = ""

    def touches(self, start: float, end: float) -> bool:
        """Whether any of this time is in it."""
        return self.start <= end and start <= self.end


Event = Write | Read


def line(event: Event | Window) -> str:
    """One event as a line of JSON."""
    return json.dumps({"event": type(event).__name__.lower()} | asdict(event), default=str)


def save(path: Path, events: Iterable[Event | Window]) -> None:
    """Write a history, one event a line, in the order of their beginnings."""
    with path.open("w") as file:
        file.writelines(line(event) + "\n" for event in sorted(events, key=lambda event: event.start))


def load(path: Path) -> list[Event | Window]:
    """Read it back."""
    kinds = {"write": Write, "read": Read, "window": Window}
    events: list[Event | Window] = []
    for text in path.read_text().splitlines():
        fields = json.loads(text)
        event = kinds[fields.pop("event")](**fields)
        if isinstance(event, Write):
            event.outcome = Outcome(event.outcome)
        if isinstance(event, Read):
            event.side = Side(event.side)
        events.append(event)
    return events
