"""A TCP proxy on one edge of the system, which can be cut, stalled, deafened and slowed."""

import asyncio
from collections import deque
from contextlib import AsyncExitStack
from typing import Self, cast

from anyio import create_task_group
from anyio.abc import TaskGroup

_CONNECT_SECONDS = 5.0


class Edge:
    """One edge: whoever connects to `port` is connected to the target; `async with` opens and closes it.

    Args:
        name: of the edge.
        target: port on 127.0.0.1.
    """

    def __init__(self, name: str, target: int) -> None:
        self.name = name
        self.port = 0
        self.delay = 0.0
        self._target = target
        self._cut = False
        self._stalled = False
        self._deaf = False
        self._thawed = asyncio.Event()
        self._thawed.set()
        self._ends: set[_End] = set()
        self._stack = AsyncExitStack()
        self._tasks: TaskGroup

    async def __aenter__(self) -> Self:
        self._tasks = await self._stack.enter_async_context(create_task_group())
        server = await asyncio.get_running_loop().create_server(lambda: _End(self, inner=False), "127.0.0.1", 0)
        self.port = int(server.sockets[0].getsockname()[1])
        self._stack.callback(self._close, server)
        return self

    async def __aexit__(self, *exc: object) -> None:
        await self._stack.aclose()

    def cut(self) -> None:
        """Break all connections, and any new one."""
        self._cut = True
        for end in list(self._ends):
            end.abort()

    def stall(self) -> None:
        """Nothing passes; connections stay."""
        self._stalled = True
        self._update()

    def deafen(self) -> None:
        """Requests pass; answers don't."""
        self._deaf = True
        self._update()

    def heal(self) -> None:
        """Everything passes; what was held up comes late."""
        self._cut = self._stalled = self._deaf = False
        self.delay = 0.0
        self._update()

    def held(self, *, inner: bool) -> bool:
        """Whether nothing may pass from this end."""
        return self._stalled or (self._deaf and inner)

    def joined(self, end: "_End") -> None:
        """A client has connected."""
        self._ends.add(end)
        if self._cut:
            end.abort()
        else:
            self._tasks.start_soon(self._connect, end)

    def left(self, end: "_End") -> None:
        """An end is gone."""
        self._ends.discard(end)

    async def _connect(self, outer: "_End") -> None:
        await self._thawed.wait()
        if outer.gone:
            return
        loop = asyncio.get_running_loop()
        try:
            async with asyncio.timeout(_CONNECT_SECONDS):
                _, inner = await loop.create_connection(lambda: _End(self, inner=True), "127.0.0.1", self._target)
        except OSError:
            outer.abort()
            return
        self._ends.add(inner)
        outer.link(inner)

    def _update(self) -> None:
        if self._stalled:
            self._thawed.clear()
        else:
            self._thawed.set()
        for end in list(self._ends):
            end.update()

    def _close(self, server: asyncio.Server) -> None:
        server.close()
        for end in list(self._ends):
            end.abort()
        self._tasks.cancel_scope.cancel()


class _End(asyncio.Protocol):
    """One end of one connection; what it receives goes to its peer, in order."""

    def __init__(self, edge: Edge, *, inner: bool) -> None:
        self._edge = edge
        self._inner = inner
        self._transport: asyncio.Transport | None = None
        self._peer: _End | None = None
        self._queue: deque[bytes] = deque()
        self._reading = True
        self._full = False
        self.gone = False

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        self._transport = cast("asyncio.Transport", transport)
        self.update()
        if not self._inner:
            self._edge.joined(self)

    def data_received(self, data: bytes) -> None:
        self._queue.append(data)
        if self._peer is None:
            return
        if self._edge.delay or len(self._queue) > 1:
            asyncio.get_running_loop().call_later(self._edge.delay, self._flush, 1)
        else:
            self._flush(1)

    def connection_lost(self, exc: Exception | None) -> None:
        self.gone = True
        self._edge.left(self)
        if self._peer is not None:
            self._flush(len(self._queue))
            self._peer.close()

    def pause_writing(self) -> None:
        self._full = True
        if self._peer is not None:
            self._peer.update()

    def resume_writing(self) -> None:
        self._full = False
        if self._peer is not None:
            self._peer.update()

    def link(self, peer: "_End") -> None:
        """Make these the two ends of one connection."""
        self._peer, peer._peer = peer, self
        self._flush(len(self._queue))
        if self.gone:
            peer.close()
        self.update()
        peer.update()

    def update(self) -> None:
        """Read from now on, or stop reading."""
        if self._transport is None or self._transport.is_closing():
            return
        reading = not self._edge.held(inner=self._inner) and not (self._peer is not None and self._peer._full)
        if reading != self._reading:
            self._reading = reading
            (self._transport.resume_reading if reading else self._transport.pause_reading)()

    def write(self, data: bytes) -> None:
        """Send it."""
        if self._transport is not None and not self._transport.is_closing():
            self._transport.write(data)

    def close(self) -> None:
        """Close after what is to be sent."""
        if self._transport is not None:
            self._transport.close()

    def abort(self) -> None:
        """Break the connection."""
        if self._transport is not None:
            self._transport.abort()

    def _flush(self, pieces: int) -> None:
        """Pass on the oldest pieces, also when there are fewer."""
        while self._peer is not None and self._queue and pieces:
            self._peer.write(self._queue.popleft())
            pieces -= 1
