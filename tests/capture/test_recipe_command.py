"""The recipe as other tools send it, and recipes that were left behind."""

import ast
import os
from collections.abc import AsyncIterator
from pathlib import Path

import pytest
import pytest_asyncio
from anyio import fail_after, run_process
from typer.testing import CliRunner

from gears.contract.mapping import Mapping
from gears.contract.redis_names import Names
from gears.engines import open_engine
from gears.engines.recipe_calls import library_of, prefix_of
from tests.support.commands import Commands
from tests.support.engines import KindStack, needs_gears1, redis_stack
from tests.support.stack import Stack, eventually
from writethrough.__main__ import app

ONE_OF_EACH_ENGINE = ["redis-stack-7.4-gears2", "valkey-9.1-function", pytest.param("gears1", marks=needs_gears1)]

LOAD = {"gears1": ["RG.PYEXECUTE"], "gears2": ["TFUNCTION", "LOAD"], "function": ["FUNCTION", "LOAD"]}
"""What a client puts before the text; see the docs."""


@pytest_asyncio.fixture(loop_scope="session", params=ONE_OF_EACH_ENGINE)
async def kind(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> AsyncIterator[KindStack]:
    """Redis alone, of each kind."""
    stack = KindStack(tmp_path_factory.mktemp("kind"), request.param)
    try:
        await stack.start_redis()
        yield stack
    finally:
        await stack.close()


async def redis_cli(kind: KindStack, *words: str, stdin: str) -> str:
    """What `redis-cli -x` is answered, which adds its input to the words."""
    redis = redis_stack(kind.folder)
    command = [str(Path(redis.command[0]).with_name("redis-cli")), "-p", str(kind.setup.redis_port), "-x", *words]
    with fail_after(30):
        ended = await run_process(command, input=stdin.encode(), env=os.environ | redis.environment)
    return ended.stdout.decode().strip()


async def test_what_redis_cli_sends_is_the_recipe(kind: KindStack, commands: Commands) -> None:
    redis, load = kind.redis_client, LOAD[kind.kind.engine]
    for prefix in ("todos", "notes"):
        words = f"recipe print --engine {kind.kind.engine} --mapping {prefix}"
        text = (await commands.run(kind, words)).stdout
        assert await redis_cli(kind, *load, stdin=text) in ("OK", f"writethrough_{prefix}")
        assert "already" in await redis_cli(kind, *load, stdin=text)
    try:
        assert [each["working"] for each in await commands.reports(kind, "recipe status")] == [True, True]
        engine = await open_engine(redis, kind.settings.mappings[0])
        assert sorted(await engine.libraries()) == ["writethrough_notes", "writethrough_todos"]
        assert [each["changed"] for each in await commands.reports(kind, "recipe install")] == [False, False]
        if kind.kind.engine == "gears2":
            await kind.set("1", {"n": 1})
            [captured, _] = await commands.reports(kind, "recipe status")
            assert captured["captured"] == 1
    finally:
        assert [each["removed"] for each in await commands.reports(kind, "recipe remove")] == [True, True]
    for mapping in kind.settings.mappings:
        engine = await open_engine(redis, mapping)
        assert await engine.libraries() == []
        assert not (await engine.status()).installed


async def test_each_mapping_has_a_text_of_its_own(stack: Stack, commands: Commands) -> None:
    said = await commands.run(stack, "recipe print --engine function", code=2)
    assert "choose one with --mapping: todos, notes" in said.stderr
    said = await commands.run(stack, "recipe print --engine function --mapping none", code=2)
    assert "there is no mapping 'none'" in said.stderr


def test_no_server_is_asked_where_the_engine_is_named() -> None:
    for engine, begins in {"gears1": "CONFIG = {", "gears2": "#!js name=", "function": "#!lua name="}.items():
        env = {"REDIS_URL": "redis://127.0.0.1:1/0", "MAPPINGS": "todos=test.todos:id"}
        ended = CliRunner().invoke(app, ["recipe", "print", "--engine", engine], env=env)
        assert (ended.exit_code, ended.stderr) == (0, "")
        assert ended.stdout.startswith(begins)
        if engine == "gears1":
            ast.parse(ended.stdout, feature_version=(3, 7))


@pytest.mark.parametrize("prefix", ["todos", "a_b", "a.b:c-d", "A0_5f"])
def test_a_library_tells_the_prefix(prefix: str) -> None:
    assert prefix_of(library_of(prefix)) == prefix


async def test_a_recipe_that_was_left_behind_is_told_and_removed_with_its_keys(
    own_stack: Stack, commands: Commands
) -> None:
    await own_stack.start(own_stack.redis, own_stack.mongo)
    names = Names("old")
    old = await open_engine(own_stack.redis_client, Mapping("old", "test", "old"))
    await old.install()
    await own_stack.set("1", {"n": 1}, prefix="old")
    await own_stack.redis_client.set(names.lease, "of a worker elsewhere")
    assert "left_behind" not in str(
        await commands.reports(own_stack, "recipe install") + await commands.reports(own_stack, "recipe status")
    )
    said = await commands.run(own_stack, "recipe remove --mapping old", code=2)
    assert "a worker is at work on 'old'" in said.stderr
    await own_stack.redis_client.delete(names.lease)

    *_, told = await commands.reports(own_stack, "recipe status")
    assert (told["mapping"], told["left_behind"]) == ("old", True)
    assert "where 1 entries wait" in told["problem"]
    assert "writethrough recipe remove --mapping old" in told["problem"]
    await own_stack.worker.start()

    async def said_so() -> bool:
        return "a recipe was left behind" in own_stack.worker.log.read_text()

    await eventually(said_so)
    refused = await commands.run(own_stack, "recipe remove --mapping todos", code=2)
    assert "MAPPINGS has 'todos'" in refused.stderr

    [removed] = await commands.reports(own_stack, "recipe remove --mapping old")
    assert (removed["removed"], removed["keys"]) == (True, 2)
    assert [key async for key in own_stack.redis_client.scan_iter(match="sync:{old}*")] == []
    assert await own_stack.get("1", prefix="old") == {"n": 1}, "documents stay"
    assert len(await commands.reports(own_stack, "recipe status")) == 2
