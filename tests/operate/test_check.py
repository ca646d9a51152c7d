"""`writethrough check` on a Redis that has all that is needed, and on such as services run, which haven't."""

from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import pytest_asyncio

from gears.access.users import Role
from service.embedded import server_commands as servers
from tests.support.commands import Commands
from tests.support.engines import KindStack
from tests.support.stack import Process, Stack, eventually, free_port

NO_CONFIG = ("--rename-command", "CONFIG", "")
NOTIFICATIONS = ("--notify-keyspace-events", "Kgdxe")


@asynccontextmanager
async def redis(folder: Path, *options: str, kind: str = "redis-8.2-function", **env: str) -> AsyncIterator[KindStack]:
    """A Redis with these options, and no MongoDB yet."""
    stack = KindStack(folder, kind, WT_MONGO_TIMEOUT="1", **env)
    child = stack.kind.child(servers.redis(stack.setup))
    child = replace(child, command=(*child.command, *options))

    async def answers() -> bool:
        return bool(await stack.redis_client.ping())

    stack.redis = Process(child, folder, {}, ready=answers)
    try:
        await stack.redis.start()
        yield stack
    finally:
        await stack.close()


async def check(stack: Stack, commands: Commands, *, code: int = 1) -> dict[str, str]:
    """What is said of Redis, by what was tried: `has`, or whether it is needed and what follows."""
    reports = await commands.reports(stack, "check", code=code)
    assert all(report["has"] or report["follows"] for report in reports)
    return {report["what"]: _said(report) for report in reports if report["server"] == "Redis"}


def _said(report: dict[str, Any]) -> str:
    if report["has"]:
        return "has"
    return f"{'lacks' if report['needed'] else 'has not'}: {report['follows']}"


def said_of(found: dict[str, str], what: str) -> str:
    [said] = [said for name, said in found.items() if what in name]
    return said


async def test_all_that_is_needed_is_there(stack: Stack, commands: Commands) -> None:
    await stack.redis_client.config_set("notify-keyspace-events", "Kgdxe")
    found = await check(stack, commands, code=0)
    assert set(found.values()) == {"has"}, found
    assert len(found) >= 14


async def test_functions_are_there_and_capture_no_plain_writes(tmp_path: Path, commands: Commands) -> None:
    async with redis(tmp_path, *NOTIFICATIONS) as stack:
        found = await check(stack, commands)
    assert "within a second" in found.pop(
        "an engine (function) that captures what plain clients write, in the same atomic unit"
    )
    assert set(found.values()) == {"has"}, found


@pytest.mark.parametrize("kind", ["redis-8.2-function", "valkey-9.1-function"])
async def test_without_config_and_module_all_works_once_they_are_set_up(
    tmp_path: Path, commands: Commands, kind: str
) -> None:
    hidden = (*NO_CONFIG, "--rename-command", "MODULE", "")
    async with redis(tmp_path, *hidden, *NOTIFICATIONS, kind=kind) as stack:
        assert "name the engine with WT_ENGINE" in said_of(await check(stack, commands), "an engine")
    async with redis(tmp_path, *hidden, *NOTIFICATIONS, kind=kind, WT_ENGINE="function") as stack:
        found = await check(stack, commands)
        assert said_of(found, "keyspace notifications, as a change of a key shows; CONFIG isn't allowed") == "has"
        assert said_of(found, "all commands") == "has"
        await stack.start(stack.mongo, stack.worker, stack.api)
        assert (await stack.client.put("/todos/a", json={"name": "by the API"})).status_code == 201
        await stack.set("b", {"name": "plain"})
        await eventually(lambda: stack.stored("b"))
        await stack.redis_client.delete("todos:a")
        await eventually(lambda: _is_gone(stack, "a"))


async def test_without_config_and_notifications(tmp_path: Path, commands: Commands) -> None:
    async with redis(tmp_path, *NO_CONFIG) as stack:
        said = said_of(await check(stack, commands), "keyspace notifications")
    assert said.startswith("has not: ")
    assert "set notify-keyspace-events to 'Kgdxe'" in said
    assert "found by sweeps alone" in said


async def test_a_node_of_a_cluster(tmp_path: Path, commands: Commands) -> None:
    async with redis(tmp_path, "--cluster-enabled", "yes", "--cluster-port", str(free_port())) as stack:
        found = await check(stack, commands)
    what, said = list(found.items())[-1]
    assert (what, said.partition(":")[0]) == ("no cluster", "lacks")
    assert "a node of a Redis Cluster" in said


async def test_a_cache(tmp_path: Path, commands: Commands) -> None:
    async with redis(tmp_path, "--appendonly", "no", "--maxmemory-policy", "allkeys-lru") as stack:
        found = await check(stack, commands)
    assert "adds Kgdxe to notify-keyspace-events" in found["keyspace notifications"]
    assert "set appendonly to yes" in found["an append-only file"]
    assert "may be evicted" in said_of(found, "maxmemory-policy")


@pytest_asyncio.fixture(scope="module", loop_scope="session")
async def acl(tmp_path_factory: pytest.TempPathFactory) -> AsyncIterator[KindStack]:
    """A Redis which is used by somebody called `clerk`."""
    async with redis(tmp_path_factory.mktemp("acl"), *NOTIFICATIONS) as stack:
        stack.env["REDIS_URL"] = stack.redis_url.replace("//", "//clerk:pw@")
        yield stack


RIGHTS = ["+@all", "~*", "&*"]


@pytest.mark.parametrize(
    ("rules", "what", "said"),
    [
        (["-info"], "INFO", "lacks: "),
        (["-json.set"], "JSON documents, and the right to keep sync:{todos}", "lacks: "),
        (["-eval"], "scripts that see todos:* and sync:{todos} in one step", "lacks: "),
        (["resetkeys", "~sync:*"], "scripts that see todos:* and sync:{todos} in one step", "lacks: "),
        (["resetchannels"], "the channel sync:{todos}:committed", "lacks: "),
        (["-function|load"], "the right to use FUNCTION LOAD", "has not: "),
        (["-fcall"], "the right to use FCALL", "lacks: "),
        (["-command"], "all commands", "has not: COMMAND isn't allowed"),
    ],
    ids=lambda rules: rules[-1] if isinstance(rules, list) else "",
)
async def test_a_right_that_the_user_lacks(
    acl: KindStack, commands: Commands, rules: list[str], what: str, said: str
) -> None:
    await acl.redis_client.execute_command("ACL", "SETUSER", "clerk", "reset", "on", ">pw", *RIGHTS, *rules)
    found = await check(acl, commands)
    assert said_of(found, what).startswith(said), found
    if said == "lacks: ":
        assert "writethrough access redis" in said_of(found, what)


async def test_the_users_with_least_privilege_have_all_they_need(tmp_path: Path, commands: Commands) -> None:
    async with redis(tmp_path, *NOTIFICATIONS) as stack:
        stack.env |= {role.variable: "pw" for role in Role}
        await commands.run(stack, "access redis --apply")
        for role in (Role.WORKER, Role.SERVICE):
            stack.env["REDIS_URL"] = stack.redis_url.replace("//", f"//{role.user}:pw@")
            found = await check(stack, commands)
            assert not [said for said in found.values() if said.startswith("lacks")], found
        assert "the worker installs the recipe" in said_of(found, "FUNCTION LOAD")


async def _is_gone(stack: Stack, document_id: str) -> bool:
    return await stack.stored(document_id) is None
