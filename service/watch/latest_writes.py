"""The latest writes that this process answered, noted while somebody looks at the page."""

from collections import deque
from collections.abc import Iterable
from statistics import median
from time import time
from typing import Any, NamedTuple
from urllib.parse import unquote

from service.http.page_paths import FOLDER

WRITES = frozenset({"POST", "PUT", "PATCH", "DELETE"})

_SHOWN, _TIMED = 10, 50
"""How many are shown, and of how many the time counts."""

_BURST, _BURST_SECONDS = 20, 0.1
"""How many are noted within so many seconds at the most, so that thousands a second cost little."""

_RECENT = 10.0
"""Seconds for which a write tells how fast writes are."""

_LONGEST = 200
"""Characters of a path that are kept."""

_IN_MONGO = {("POST", 201), ("PUT", 200), ("PUT", 201), ("PATCH", 200), ("DELETE", 204)}
"""Answers to writes of one document that MongoDB has."""

_LOCATION = b"location"

Headers = Iterable[tuple[bytes, bytes]]


class _Write(NamedTuple):
    at: float
    method: str
    path: str
    status: int
    seconds: float


class Latest:
    """Notes them."""

    def __init__(self) -> None:
        self.watched = False
        """Whether there is anybody to note them for."""
        self._writes: deque[_Write] = deque(maxlen=_TIMED)

    def note(self, method: str, path: str, status: int, seconds: float, headers: Headers) -> None:
        """Note a write that was answered, unless many others just were.

        Args:
            method: of the request, one of `WRITES`.
            path: of the request; where the answer names a location, that is noted instead.
            status: of the answer.
            seconds: from the request's head to the end of the answer.
            headers: of the answer.
        """
        now, writes = time(), self._writes
        if path.startswith(FOLDER) or (len(writes) >= _BURST and now - writes[-_BURST].at < _BURST_SECONDS):
            return
        if method == "POST":
            path = next((unquote(value.decode("latin-1")) for name, value in headers if name == _LOCATION), path)
        writes.append(_Write(now, method, path[:_LONGEST], status, seconds))

    def typical(self) -> float | None:
        """How many seconds a write takes now, until MongoDB has it; None if there were none just now."""
        since = time() - _RECENT
        took = [
            write.seconds for write in self._writes if write.at > since and (write.method, write.status) in _IN_MONGO
        ]
        return median(took) if took else None

    def shown(self) -> list[dict[str, Any]]:
        """The latest ones, the newest first, for the page."""
        return [
            {
                "at": write.at,
                "method": write.method,
                "path": write.path,
                "status": write.status,
                "seconds": write.seconds,
            }
            for _, write in zip(range(_SHOWN), reversed(self._writes), strict=False)
        ]
