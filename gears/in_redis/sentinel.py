"""Redis behind sentinels: they are asked for the primary whenever a connection is made."""

import asyncio
import re
from contextlib import suppress
from time import monotonic
from typing import Any, NamedTuple
from urllib.parse import unquote
from weakref import WeakSet

from redis import exceptions
from redis.asyncio import BlockingConnectionPool
from redis.asyncio.connection import parse_url
from redis.asyncio.retry import Retry
from redis.asyncio.sentinel import (
    MasterNotFoundError,
    Sentinel,
    SentinelConnectionPool,
    SentinelManagedConnection,
    SentinelManagedSSLConnection,
)
from redis.backoff import NoBackoff

from gears.errors import ConfigError
from gears.in_redis.describe_errors import describe

_URL = re.compile(r"(rediss?)\+sentinel://([^@/?]*@)?([^@/?]+)/([^@/?]+)(?:/(\d+))?/?(?:\?(.*))?")

_PORT = 26379

_ANSWER_SECONDS = 1.0
"""How long a sentinel may take before the next one is asked."""

_LOOK_EVERY = 0.5
"""Seconds between two looks whether sentinels name another primary: one that works is told late that it is none."""

_Server = tuple[str, int]
"""Host and port."""


class Service(NamedTuple):
    """What a URL says.

    Args:
        name: what sentinels call the primary with its replicas.
        sentinels: where these are.
        to_redis: arguments of connections to Redis.
        to_sentinels: arguments of connections to sentinels.
    """

    name: str
    sentinels: tuple[_Server, ...]
    to_redis: dict[str, Any]
    to_sentinels: dict[str, Any]


def service(url: str) -> Service | None:
    """What a `redis+sentinel://` or `rediss+sentinel://` URL says; None for all others.

    Raises:
        ConfigError: it has another form.
        ValueError: a port, or an option, is wrong.
    """
    if not url.startswith(("redis+sentinel:", "rediss+sentinel:")):
        return None
    parts = _URL.fullmatch(url)
    if parts is None:
        raise ConfigError(
            "REDIS_URL can't be used: write it as redis+sentinel://user:password@host:26379,host:26379/service/0, and "
            "percent-encode all but letters and digits in user, password and service"
        )
    scheme, user, hosts, name, database, query = (part or "" for part in parts.groups())
    of_each: list[dict[str, Any]] = [
        dict(parse_url(f"{scheme}://{user}{host}/{database}?{query}")) for host in hosts.split(",")
    ]
    sentinels = tuple((str(each["host"]), int(each.get("port", _PORT))) for each in of_each if each.get("host"))
    if len(sentinels) < len(of_each):
        raise ValueError("a sentinel has no name")
    options = {key: value for key, value in of_each[0].items() if key not in ("host", "port", "connection_class")}
    of_sentinels = {key: options.pop(f"sentinel_{key}", None) for key in ("username", "password")}
    tls = {key: value for key, value in options.items() if key.startswith("ssl_")}
    return Service(
        unquote(name),
        sentinels,
        options | {"connection_class": _TlsConnection if scheme == "rediss" else _Connection},
        of_sentinels | tls | {"ssl": scheme == "rediss"},
    )


class _Connection(SentinelManagedConnection):
    """One to the primary; a replica is left at once."""

    async def connect_to(self, address: _Server) -> None:
        try:
            await super().connect_to(address)  # type: ignore[no-untyped-call]
        except BaseException:
            self.connection_pool.sentinel_manager.ask_another()
            await self.disconnect(nowait=True)
            raise
        self.connection_pool.leave_others(address)

    async def on_connect_check_health(self, check_health: bool = True) -> None:
        """Raise unless it is a primary, and sentinels named no other one meanwhile; before anything else is sent."""
        await super().on_connect_check_health(check_health)
        await self.send_command("INFO", "replication")
        server = self.host, self.port
        if b"role:master" not in await self.read_response() or server != self.connection_pool.master_address:
            raise exceptions.ConnectionError(f"{_shown(server)} is no primary any more; the sentinels are asked again")


class _TlsConnection(_Connection, SentinelManagedSSLConnection):
    pass


class _Sentinels(Sentinel):
    async def discover_master(self, service_name: str) -> _Server:
        """Where the primary is, from the first sentinel that says so.

        Unlike redis-py's, this takes the promoted replica's address before all other replicas follow it; whether it is
        the primary is for the connection to see.
        """
        silent: list[str] = []
        for sentinel in tuple(self.sentinels):
            try:
                found: Any = await sentinel.sentinel_get_master_addr_by_name(service_name)
            except (exceptions.RedisError, OSError, RuntimeError) as error:  # RuntimeError: uvloop's, once it is closed
                self.ask_another()
                where = sentinel.connection_pool.connection_kwargs
                silent.append(_why(_shown((where["host"], where["port"])), error))
                continue
            if found:
                return found[0], int(found[1])
        if len(silent) == len(self.sentinels):
            raise MasterNotFoundError(f"no sentinel answers: {'; '.join(sorted(silent))}")
        raise MasterNotFoundError(f"the sentinels know no service {service_name!r}; correct REDIS_URL")

    def ask_another(self) -> None:
        """Ask the first one last from now on."""
        self.sentinels.append(self.sentinels.pop(0))


class SentinelPool(SentinelConnectionPool, BlockingConnectionPool):
    """Connections to the primary.

    Args:
        service: see `service`.
        options: further arguments, as `BlockingConnectionPool` takes them.
    """

    def __init__(self, service: Service, **options: Any) -> None:
        within = min((options | service.to_redis)["socket_timeout"], _ANSWER_SECONDS)
        manager = _Sentinels(  # type: ignore[no-untyped-call]
            service.sentinels,
            sentinel_kwargs=service.to_sentinels
            | {
                "socket_timeout": within,
                "socket_connect_timeout": within,
                "retry": Retry(NoBackoff(), 0),
                "protocol": 2,
                "decode_responses": True,
            },
        )
        self._made: WeakSet[_Connection] = WeakSet()
        self._sentinels = service.sentinels
        self._looked = monotonic()
        self._looking: asyncio.Task[None] | None = None
        super().__init__(service.name, manager, **options | service.to_redis)  # type: ignore[no-untyped-call]

    @property
    def address(self) -> str:
        """The service, and where its sentinels are."""
        return f"{self.service_name} (sentinels {', '.join(map(_shown, self._sentinels))})"

    async def get_connection(self, *_: Any, **__: Any) -> _Connection:
        if monotonic() - self._looked >= _LOOK_EVERY and (self._looking is None or self._looking.done()):
            self._looking = asyncio.create_task(self._look())
        connection: _Connection = await super().get_connection()  # type: ignore[no-untyped-call]
        return connection

    def make_connection(self) -> _Connection:
        connection: _Connection = super().make_connection()  # type: ignore[no-untyped-call]
        self._made.add(connection)
        return connection

    def leave_others(self, primary: _Server) -> None:
        """Break all connections to other servers: what is under way there ends as when they die."""
        for connection in list(self._made):
            if connection.is_connected and (connection.host, connection.port) != primary:
                connection._writer.transport.abort()  # type: ignore[union-attr]

    async def disconnect(self, inuse_connections: bool = True) -> None:
        if inuse_connections and self._looking is not None:
            self._looking.cancel()
        await super().disconnect(inuse_connections)
        if inuse_connections:
            for sentinel in self.sentinel_manager.sentinels:
                await sentinel.aclose()

    async def _look(self) -> None:
        """Leave the primary that is known if sentinels name another, which is one."""
        with suppress(exceptions.RedisError, OSError):
            if await self.sentinel_manager.discover_master(self.service_name) != self.master_address:
                connection = self.make_connection()
                await connection.connect()  # type: ignore[no-untyped-call]
                await connection.disconnect()
        self._looked = monotonic()


def _shown(server: _Server) -> str:
    host, port = server
    return f"[{host}]:{port}" if ":" in host else f"{host}:{port}"


def _why(where: str, error: Exception) -> str:
    said = describe(error)
    return said.removeprefix("Redis at ") if where in said else f"{where}: {said.removeprefix('Redis: ')}"
