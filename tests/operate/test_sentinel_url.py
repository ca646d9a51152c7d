"""`REDIS_URL` with sentinels: its forms, passwords and TLS, and what is said when it doesn't lead to a primary."""

from collections.abc import AsyncIterator
from contextlib import suppress
from dataclasses import dataclass
from functools import partial
from pathlib import Path

import pytest
import pytest_asyncio
from redis.exceptions import RedisError

from gears.engines import open_engine
from gears.engines.base import Any_
from gears.errors import ConfigError, OutcomeUnknown, RedisAway
from gears.in_redis.client import Redis, address, connect, send_once
from gears.in_redis.describe_errors import describe
from service.embedded.children.child import Child
from tests.operate.test_secrets import tls
from tests.support.commands import Commands
from tests.support.engines import redis_stack
from tests.support.stack import Process, Stack, eventually, free_port


@dataclass(frozen=True, slots=True)
class Watched:
    """A primary and its sentinel, with TLS and users of their own.

    Args:
        sentinel: host and port of the sentinel.
        certificates: the folder with `ca.pem`.
    """

    sentinel: str
    certificates: Path

    def url(self, *, service: str = "my%20master", password: str = "of%20sentinel") -> str:
        """The URL by which it is found."""
        options = f"ssl_ca_certs={self.certificates}/ca.pem&sentinel_username=asker&sentinel_password={password}"
        return f"rediss+sentinel://writer:of%40redis@127.0.0.1:1,{self.sentinel}/{service}/2?{options}"


@pytest_asyncio.fixture(scope="module", loop_scope="session")
async def watched(tmp_path_factory: pytest.TempPathFactory) -> AsyncIterator[Watched]:
    folder = tmp_path_factory.mktemp("watched")
    tls(folder)
    port, sentinel_port = free_port(), free_port()
    encrypted = (
        f"port 0\nbind 127.0.0.1\ndir {folder}\ntls-auth-clients no\ntls-replication yes\n"
        f"tls-cert-file {folder}/server.pem\ntls-key-file {folder}/server.key\ntls-ca-cert-file {folder}/ca.pem\n"
    )
    primary, sentinel = folder / "primary.conf", folder / "sentinel.conf"
    primary.write_text(f"{encrypted}tls-port {port}\nsave ''\nuser default off\nuser writer on >of@redis ~* &* +@all\n")
    sentinel.write_text(
        f'{encrypted}tls-port {sentinel_port}\nuser default off\nuser asker on ">of sentinel" ~* &* +@all\n'
        f'sentinel monitor "my master" 127.0.0.1 {port} 1\n'
        'sentinel auth-user "my master" writer\nsentinel auth-pass "my master" of@redis\n'
    )
    found = Watched(f"127.0.0.1:{sentinel_port}", folder)
    stack = redis_stack(folder)
    program = stack.command[0]
    redis = connect(f"rediss://writer:of%40redis@127.0.0.1:{port}/2?ssl_ca_certs={folder}/ca.pem", timeout=5)
    by_sentinel = connect(found.url(), timeout=5)
    started = {
        "primary": ((program, str(primary)), redis),
        "sentinel": ((program, str(sentinel), "--sentinel"), by_sentinel),
    }
    processes = [
        Process(Child(name=name, command=command, environment=stack.environment), folder, {}, client.ping)
        for name, (command, client) in started.items()
    ]
    try:
        for process in processes:
            await process.start()
        yield found
    finally:
        await redis.aclose()
        await by_sentinel.aclose()
        for process in processes:
            if process.running:
                await process.kill()


async def test_the_primary_is_found_over_tls_with_passwords_for_both(watched: Watched) -> None:
    async with connect(watched.url(), timeout=5, touching=False) as redis:
        assert address(redis) == f"my master (sentinels 127.0.0.1:1, {watched.sentinel})"
        await eventually(partial(answers, redis), within=30)
        assert await send_once(redis, "SET", "small", "1") == b"OK"
        assert await send_once(redis, "SET", "large", bytes(100_000)) == b"OK"
        assert (await redis.info("keyspace"))["db2"]["keys"] == 2


async def answers(redis: Redis) -> bool:
    """Whether a sentinel answers in time, and then Redis."""
    with suppress(RedisError, RedisAway):
        return bool(await send_once(redis, "PING") == b"PONG" and await redis.ping())
    return False


@pytest.mark.parametrize(
    ("wrong", "said"),
    [
        ({"service": "other"}, ["the sentinels know no service 'other'; correct REDIS_URL"]),
        (
            {"password": "wrong"},
            ["no sentinel answers: 127.0.0.1:1: connection refused", "user or password is wrong"],
        ),
    ],
)
async def test_what_the_sentinels_say_is_said(watched: Watched, wrong: dict[str, str], said: list[str]) -> None:
    async with connect(watched.url(**wrong), timeout=5) as redis:

        async def refused() -> bool:
            with pytest.raises(RedisError) as raised:
                await redis.ping()
            with pytest.raises(RedisAway) as away:
                await send_once(redis, "PING")
            return all(part in describe(raised.value) and part in str(away.value) for part in said)

        await eventually(refused, within=30)


async def test_without_sentinels_the_api_says_whom_it_waits_for(own_stack: Stack, commands: Commands) -> None:
    ports = sorted((free_port(), free_port()), key=str)
    own_stack.env["REDIS_URL"] = url = f"redis+sentinel://127.0.0.1:{ports[0]},127.0.0.1:{ports[1]}/mymaster/0"
    api = own_stack.another_api("api", own_stack.setup.port, REDIS_URL=url)
    own_stack.api = api
    await own_stack.start(api)
    answer = await own_stack.client.put("/notes/1", json={})
    assert (answer.status_code, answer.json()["type"]) == (503, "urn:writethrough:problem:redis-unavailable")
    assert answer.headers["Retry-After"] == "1"
    waits_for = f"no sentinel answers: 127.0.0.1:{ports[0]}: connection refused; 127.0.0.1:{ports[1]}"
    assert waits_for in answer.json()["detail"]
    assert waits_for in (await own_stack.client.get("/readyz")).json()["checks"]["redis"]
    ended = await commands.run(own_stack, "check", code=1)
    assert "no sentinel answers" in ended.stdout


@pytest.mark.parametrize(
    "url",
    [
        "redis+sentinel://h:1,i:2",
        "redis+sentinel://h:1,i:2/",
        "redis+sentinel://h:1,i:2/my/x",
        "redis+sentinel://h:x/my/0",
        "redis+sentinel://h:1,/my/0",
        "redis+sentinel://h:1/my/0?no_such_option=1",
        "rediss+sentinel://h:1/my/0?ssl_cert_reqs=nonsense",
    ],
)
def test_a_url_that_names_no_primary_is_refused_at_once(url: str) -> None:
    with pytest.raises(ConfigError, match="REDIS_URL can't be used: "):
        connect(url, timeout=1)


@pytest.mark.parametrize("name", ["gears2", "function"])
async def test_a_connection_to_what_became_a_replica_is_left_at_once(own_stack: Stack, name: str) -> None:
    await own_stack.start(own_stack.redis)
    async with connect(own_stack.redis_url, timeout=5) as redis:
        engine = await open_engine(redis, own_stack.settings.mappings[0], name)
        await engine.install()
        for document in (b'{"n":1}', b'{"n":"%s"}' % (b"x" * 100_000)):
            put = partial(engine.put, "a", document, Any_(), backlog_limit=100)
            await put()
            shared = await send_once(redis, "CLIENT", "ID")
            await own_stack.redis_client.replicaof("127.0.0.1", "1")
            with pytest.raises(RedisAway, match="replica"):
                await put()
            await own_stack.redis_client.replicaof("NO", "ONE")
            await put()
            assert len(document) > 1000 or await send_once(redis, "CLIENT", "ID") != shared


async def test_a_primary_that_works_is_left_when_sentinels_name_another(tmp_path: Path) -> None:
    """By a connection that is never broken: the old primary isn't told."""
    first, second, asked = free_port(), free_port(), free_port()
    (tmp_path / "sentinel.conf").write_text(f"port {asked}\nsentinel monitor my 127.0.0.1 {first} 1\n")
    stack = redis_stack(tmp_path)
    program = stack.command[0]
    arguments = {
        first: ("--port", str(first), "--save", ""),
        second: ("--port", str(second), "--save", ""),
        asked: (str(tmp_path / "sentinel.conf"), "--sentinel"),
    }
    processes = []
    for port, words in arguments.items():
        client = Redis(port=port, protocol=2)
        child = Child(name=str(port), command=(program, *words, "--dir", str(tmp_path)), environment=stack.environment)
        processes.append((Process(child, tmp_path, {}, client.ping), client))
    try:
        for process, _ in processes:
            await process.start()
        async with connect(f"redis+sentinel://127.0.0.1:{asked}/my/0", timeout=5) as redis:
            assert await send_once(redis, "CONFIG", "GET", "port") == [b"port", str(first).encode()]
            sentinel = processes[-1][1]
            await sentinel.execute_command("SENTINEL", "REMOVE", "my")
            await sentinel.execute_command("SENTINEL", "MONITOR", "my", "127.0.0.1", second, 1)

            async def moved() -> bool:
                with suppress(RedisError, RedisAway, OutcomeUnknown):
                    await redis.ping()
                    return bool(await send_once(redis, "CONFIG", "GET", "port") == [b"port", str(second).encode()])
                return False

            await eventually(moved, within=30)
    finally:
        for process, client in processes:
            await client.aclose()
            if process.running:
                await process.kill()
