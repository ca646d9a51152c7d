"""What all clients share: the history they write, and unique tags."""

import time
from itertools import count

import httpx

from tests.torture.history import Event, Outcome, Read, Side, Write


class Recorder:
    """The one owner of the history."""

    def __init__(self) -> None:
        self.since = time.monotonic()
        self.events: list[Event] = []
        self.strange: list[Write] = []
        """Answers that no client may get."""
        self._tags = count(1)

    def now(self) -> float:
        """Seconds since the run began."""
        return time.monotonic() - self.since

    def tag(self, client: str) -> str:
        """A value that nobody else writes."""
        return f"{client}.{next(self._tags)}"

    def begin(
        self, client: str, kind: str, key: str, value: str | None = None, *, replaced: str | None = None
    ) -> Write:
        """Record a write that is about to be sent; until it is ended, its outcome is unknown."""
        write = Write(client, kind, key, value, self.now(), self.now(), Outcome.UNKNOWN, replaced=replaced)
        self.events.append(write)
        return write

    def end(self, write: Write, outcome: Outcome, detail: str = "", *, token: str = "") -> None:
        """Record how it ended."""
        write.end, write.outcome, write.detail, write.token = self.now(), outcome, detail, token
        if outcome is Outcome.ACKNOWLEDGED:
            write.acknowledged = write.end

    def seen(
        self, client: str, kind: str, key: str, value: str | None, side: Side, start: float, *, final: str = ""
    ) -> None:
        """Record a state that was seen just now."""
        self.events.append(Read(client, kind, key, value, side, start, self.now(), final))


class Transport(httpx.AsyncHTTPTransport):
    """Calls a connection that is closed as soon as it is made what it is; anyio 4 fails on it under uvloop."""

    async def handle_async_request(self, request: httpx.Request) -> httpx.Response:
        try:
            return await super().handle_async_request(request)
        except AttributeError as error:
            raise httpx.ConnectError("closed as soon as it was made") from error
