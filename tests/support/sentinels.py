"""A system whose Redis is a primary with a replica, which three sentinels watch."""

import os
from contextlib import suppress
from dataclasses import replace
from pathlib import Path
from typing import Any

from redis.asyncio import Redis
from redis.exceptions import RedisError

from gears.in_redis.client import connect
from service.embedded import server_commands as servers
from service.embedded.children.child import Child
from service.embedded.ports_and_folder import LOOPBACK
from tests.support.engines import Kind, redis_stack
from tests.support.shown import ROOT, File, steps
from tests.support.stack import Probe, Process, Stack, eventually, free_port

SERVICE = "mymaster"

_PAGE = ROOT / "docs" / "scale.md"
"""Shows the sentinels' file."""

_FAILOVER_WITHIN = 120.0
"""Sentinels do nothing for half a minute after they were not run for two seconds (TILT)."""


class WatchedStack(Stack):
    """A stack whose Redis fails over.

    Args:
        folder: where its data and logs go.
        kind: what its Redis servers are.
        env: settings beside the usual ones.
    """

    def __init__(self, folder: Path, kind: Kind, **env: Any) -> None:
        self.sentinel_ports = [free_port() for _ in range(3)]
        hosts = ",".join(f"{LOOPBACK}:{port}" for port in self.sentinel_ports)
        url = f"redis+sentinel://{hosts}/{SERVICE}/0"
        super().__init__(folder, REDIS_URL=url, **env)
        self._kind = kind
        self._asking = [Redis(port=port, socket_timeout=5, protocol=2) for port in self.sentinel_ports]
        self.direct_url = self.redis_url
        self.redis_url, self._direct = url, self.redis_client
        self.redis_client = connect(url, timeout=5)
        self.servers = {port: self._server(port) for port in (self.setup.redis_port, free_port())}
        self.primary_port = self.setup.redis_port
        self.redis = self.servers[self.primary_port]
        self.sentinels = [self._sentinel(port) for port in self.sentinel_ports]

    @property
    def processes(self) -> list[Process]:
        """The sentinels end first, so that they start nothing meanwhile."""
        return [*self.sentinels, self.api, self.worker, self.mongo, *self.servers.values()]

    async def start_watching(self) -> None:
        """Start the replica and the sentinels, and wait until each of these knows all."""
        await self.start_replica()
        for sentinel in self.sentinels:
            await sentinel.start()
        await self.is_whole()

    async def is_whole(self) -> None:
        """Wait until a failover can be done: the replica has everything, and the sentinels agree."""
        await eventually(self._is_whole, within=_FAILOVER_WITHIN, pause=0.1)

    async def kill_primary(self) -> None:
        """SIGKILL; returns when the other server is the primary.

        Sentinels that were not run for seconds don't trust their clock (TILT), and may then promote nobody for ever:
        the link of the replica was down for too long. On a machine that is so busy the server is started again.
        """
        await self.servers[self.primary_port].kill()
        try:
            await self.failed_over()
        except AssertionError:
            assert any("+tilt" in sentinel.log.read_text() for sentinel in self.sentinels)
            await self.servers[self.primary_port].start()

    async def order_failover(self) -> None:
        """Have a sentinel do it; returns when the other server is the primary."""
        await eventually(self._ordered, within=_FAILOVER_WITHIN, pause=0.1)
        await self.failed_over()

    async def failed_over(self) -> None:
        """Wait until the sentinels name the other server."""

        async def named() -> bool:
            return all([await self._named(asking) not in (None, self.primary_port) for asking in self._asking])

        await eventually(named, within=_FAILOVER_WITHIN)
        named_port = await self._named(self._asking[0])
        assert named_port is not None
        self.primary_port = named_port

    async def start_replica(self) -> None:
        """Start the server that doesn't run, as a replica."""
        for port, server in self.servers.items():
            if not server.running:
                await server.start()
                await self._make_replica(port)

    async def close(self) -> None:
        for client in (self._direct, *self._asking):
            await client.aclose()
        await super().close()

    async def _make_replica(self, port: int) -> None:
        async with Redis(port=port, socket_timeout=5, protocol=2) as redis:
            await redis.replicaof(LOOPBACK, str(self.primary_port))

    async def _ordered(self) -> bool:
        with suppress(RedisError):  # where one is under way
            await self._asking[0].execute_command("SENTINEL", "FAILOVER", SERVICE)
            return True
        return False

    async def _named(self, sentinel: Redis) -> int | None:
        with suppress(RedisError, OSError):
            found: Any = await sentinel.execute_command("SENTINEL", "GET-MASTER-ADDR-BY-NAME", SERVICE)
            return int(found[1])
        return None

    async def _is_whole(self) -> bool:
        for asking in self._asking:
            states: Any = await asking.sentinel_masters()
            state = states[SERVICE]
            replicas: Any = await asking.sentinel_slaves(SERVICE)
            linked = [r for r in replicas if r["master-link-status"] == "ok" and not r["is_sdown"]]
            if state["port"] != self.primary_port or state["flags"] != "master" or not linked:
                return False
            if state["num-other-sentinels"] != len(self.sentinels) - 1:
                return False
        return True

    def _server(self, port: int) -> Process:
        folder = self.folder / f"server{port}"
        (folder / "redis").mkdir(parents=True)
        setup = replace(self.setup, redis_port=port, data=folder)
        child = self._kind.child(servers.redis(setup))
        program, *arguments = child.command
        command = (program, "--repl-diskless-sync-delay", "0", *arguments)
        return Process(replace(child, name=f"redis{port}", command=command), self.folder, {}, ready=_pings(port))

    def _sentinel(self, port: int) -> Process:
        folder = self.folder / f"sentinel{port}"
        folder.mkdir()
        file = folder / "sentinel.conf"
        shown = next(
            step.text for step in steps(_PAGE.read_text()) if isinstance(step, File) and step.name == file.name
        )
        file.write_text(
            f"bind {LOOPBACK}\ndir {folder}\n"
            + shown.replace("60000", "10000")
            .replace("26379", str(port))
            .replace("10.0.0.1 6379", f"{LOOPBACK} {self.primary_port}")
        )
        redis = redis_stack(folder)
        command = (redis.command[0], os.fspath(file), "--sentinel")
        child = Child(name=f"sentinel{port}", command=command, environment=redis.environment)
        return Process(child, self.folder, {}, ready=_pings(port))


def _pings(port: int) -> Probe:
    async def ping() -> bool:
        async with Redis(port=port, socket_timeout=5, protocol=2) as redis:
            return bool(await redis.ping())

    return ping
