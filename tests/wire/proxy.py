"""The proxy itself: listens, keeps the rules, freezes and thaws."""

import asyncio
from collections import Counter, deque
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from typing import Self

from tests.wire.actions import Action
from tests.wire.command import Command
from tests.wire.connection import Connection
from tests.wire.message import Document
from tests.wire.rules import On, Rule
from tests.wire.traffic import Seen, Traffic

_UNSAID = frozenset({"compression", "topologyVersion", "passives", "arbiters"})


class WireProxy:
    """Whoever connects to `port` is connected to the server; `async with` opens and closes it.

    Replies to `hello` name the proxy instead of the server, so that drivers stay with it. They offer no compression,
    and no stream of news: a driver that was told "not the primary" asks at once who is.

    Args:
        target: port of the server.
        host: its host.
        port: where to listen; a free port by default.
        rename: what the server is to call a database; as the client does by default. Replies have the server's names,
            and drivers use them in what follows, so it leaves these as they are.
    """

    def __init__(
        self, target: int, host: str = "127.0.0.1", *, port: int = 0, rename: Callable[[str], str] | None = None
    ) -> None:
        self.port = port
        self.traffic = Traffic()
        self._target = (host, target)
        self._rename = rename
        self._rules: list[Rule] = []
        self._thawed = asyncio.Event()
        self._thawed.set()
        self._server: asyncio.Server | None = None
        self._connections: dict[asyncio.Task[None], Connection] = {}

    async def __aenter__(self) -> Self:
        await self.up()
        return self

    async def __aexit__(self, *exc: object) -> None:
        self.down()
        for task in list(self._connections):
            task.cancel()
        await asyncio.gather(*self._connections, return_exceptions=True)

    @property
    def uri(self) -> str:
        """Where clients find it."""
        return f"mongodb://127.0.0.1:{self.port}"

    @property
    def counts(self) -> Counter[str]:
        """How many commands of each name clients have sent."""
        return self.traffic.counts

    @property
    def recorded(self) -> deque[Seen]:
        """The latest commands."""
        return self.traffic.recorded

    @property
    def connections(self) -> int:
        """How many clients are connected, those included whose commands are still under way after they hung up."""
        return len(self._connections)

    @contextmanager
    def rule(self, chosen: On, action: Action) -> Iterator[Rule]:
        """Have a rule in force in a block."""
        rule = self.add(chosen, action)
        try:
            yield rule
        finally:
            self.remove(rule)

    def add(self, chosen: On, action: Action) -> Rule:
        """Have a rule in force from now on; of several that fit, the newest whose turn it is has its way."""
        rule = Rule(chosen, action)
        self._rules.insert(0, rule)
        return rule

    def remove(self, rule: Rule) -> None:
        """Have a rule in force no longer."""
        self._rules.remove(rule)

    def freeze(self) -> None:
        """Nothing passes; connections stay, and new ones are taken."""
        self._thawed.clear()

    def thaw(self) -> None:
        """Everything passes again; what was held up comes late."""
        self._thawed.set()

    def cut(self) -> None:
        """Break all connections."""
        for connection in self._connections.values():
            connection.abort()

    def down(self) -> None:
        """Break all connections, and refuse new ones."""
        if self._server is not None:
            self._server.close()
        self.cut()

    async def up(self) -> None:
        """Take connections, on the same port as before."""
        self._server = await asyncio.start_server(self._serve, "127.0.0.1", self.port)
        self.port = int(self._server.sockets[0].getsockname()[1])

    async def _serve(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        connection = Connection(
            reader,
            writer,
            target=self._target,
            thawed=self._thawed,
            choose=self._choose,
            rename=self._rename,
            as_seen_here=self._as_seen_here,
        )
        task = asyncio.current_task()
        assert task is not None
        self._connections[task] = connection
        try:
            with suppress(asyncio.CancelledError):  # the task ends here, and the stream's protocol would complain of it
                await connection.run()
        finally:
            del self._connections[task]

    def _choose(self, command: Command) -> Action | None:
        self.traffic.note(command)
        return next((rule.action for rule in self._rules if rule.takes(command)), None)

    def _as_seen_here(self, hello: Document) -> Document:
        host, port = self._target
        servers, here = (f"{host}:{port}", hello.get("me")), f"127.0.0.1:{self.port}"
        seen = {field: here if value in servers else value for field, value in hello.items() if field not in _UNSAID}
        return seen | ({"hosts": [here]} if "hosts" in hello else {})
