"""What went through."""

from collections import Counter, deque
from collections.abc import Collection
from dataclasses import dataclass
from time import monotonic

from tests.wire.command import Command

_RECORDED = 20_000


@dataclass(frozen=True, slots=True)
class Seen:
    """A command that a client sent; `at` is a moment of `time.monotonic`."""

    at: float
    name: str
    database: str
    collection: str
    items: int


class Traffic:
    """Counts of commands since the last reset, and the latest of them; `hello` is counted, but not recorded."""

    def __init__(self) -> None:
        self.counts: Counter[str] = Counter()
        self.recorded: deque[Seen] = deque(maxlen=_RECORDED)

    def note(self, command: Command) -> None:
        """Count a command."""
        self.counts[command.name] += 1
        if command.name != "hello":
            seen = Seen(monotonic(), command.name, command.database, command.collection, command.size)
            self.recorded.append(seen)

    def reset(self) -> None:
        """Begin anew."""
        self.counts.clear()
        self.recorded.clear()

    def peak(self, *, seconds: float = 1.0, names: Collection[str] = (), collection: str | None = None) -> int:
        """The most commands within any so many seconds: of these names, or all; on this collection, or any."""
        window: deque[float] = deque()
        most = 0
        for seen in self.recorded:
            if (names and seen.name not in names) or (collection is not None and seen.collection != collection):
                continue
            window.append(seen.at)
            while window[0] <= seen.at - seconds:
                window.popleft()
            most = max(most, len(window))
        return most
