"""node-redis of all major versions: it sends the recipe as the tutorial's script does, and its writes arrive.

Skipped where Node.js or the packages aren't to be had.
"""

import json
import os
import shutil
import subprocess
from collections.abc import AsyncIterator
from functools import partial
from pathlib import Path
from typing import Any

import pytest
import pytest_asyncio
from anyio import fail_after, run_process

from gears.engines import open_engine
from tests.capture.test_recipe_command import LOAD, ONE_OF_EACH_ENGINE
from tests.support.commands import Commands
from tests.support.engines import KindStack
from tests.support.stack import eventually

PACKAGES = ["redis@6.3.1", *(f"redis{version[0]}@npm:redis@{version}" for version in ("3.1.2", "4.7.1", "5.12.1"))]

CLIENTS = [("redis3", 2), ("redis4", 2), ("redis5", 2), ("redis5", 3), ("redis", 2), ("redis", 3)]
"""Packages, each with the version of RESP that it speaks."""

ERRORS = {"redis3": "ReplyError", "redis4": "ErrorReply", "redis5": "SimpleError", "redis": "SimpleError"}

AFTER = {"gears1": ["REQUIREMENTS", "rgsync", "pymongo==3.12.0"], "gears2": [], "function": []}
"""What the tutorial's script sends after the text: RedisGears installs it, and the recipe has no use for it."""


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder with the scripts and the packages, installed once."""
    node, npm = shutil.which("node"), shutil.which("npm")
    if node is None or npm is None:
        pytest.skip("needs Node.js 20 or later, with npm")
    version = subprocess.run([node, "--version"], check=True, capture_output=True, text=True, timeout=30).stdout
    if int(version.strip().lstrip("v").split(".")[0]) < 20:
        pytest.skip(f"needs Node.js 20 or later, not {version.strip()}")
    folder = tmp_path_factory.mktemp("node")
    (folder / "package.json").write_text('{"type": "module"}')
    for script in Path(__file__).parent.glob("*.js"):
        shutil.copy(script, folder)
    install = [npm, "install", "--ignore-scripts", "--no-audit", "--no-fund", *PACKAGES]
    install += ["--fetch-retries=1", "--fetch-retry-mintimeout=1000"]
    try:
        ended = subprocess.run(install, cwd=folder, check=False, capture_output=True, text=True, timeout=90)
    except subprocess.TimeoutExpired:
        pytest.skip("npm doesn't install node-redis within 90 s")
    if ended.returncode:
        pytest.skip(f"npm can't install node-redis: {' '.join(ended.stderr.split())[:200]}")
    return folder


@pytest_asyncio.fixture(loop_scope="session", params=ONE_OF_EACH_ENGINE)
async def kind(
    folder: Path, request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory
) -> AsyncIterator[KindStack]:
    """A system on each kind of server, with one mapping and no recipe."""
    env = {"MAPPINGS": "todos=test.todos:id", "WT_HOLD_TIMEOUT": "30"}
    stack = KindStack(tmp_path_factory.mktemp("kind"), request.param, **env)
    try:
        await stack.start_redis()
        yield stack
    finally:
        await stack.close()


async def node(folder: Path, stack: KindStack, *words: str, within: float = 60) -> str:
    """What a script prints."""
    with fail_after(within):
        ended = await run_process(["node", *words], cwd=folder, env=os.environ | stack.env, check=False)
    assert ended.returncode == 0, ended.stderr.decode()
    return ended.stdout.decode()


@pytest.mark.timeout(480)
async def test_the_tutorials_script_installs_the_recipe_and_every_client_writes_through(
    kind: KindStack, folder: Path, commands: Commands
) -> None:
    engine = kind.kind.engine
    text = (await commands.run(kind, f"recipe print --engine {engine}")).stdout
    (folder / "app.py").write_text(text)
    await node(folder, kind, "script.js", *LOAD[engine], "app.py", *AFTER[engine], within=240)
    [installed] = await commands.reports(kind, "recipe status")
    assert installed["working"]
    [again] = await commands.reports(kind, "recipe install")
    assert not again["changed"]

    await kind.start(kind.mongo, kind.worker)
    words = [str(word) for client in CLIENTS for word in client]
    answers = map(json.loads, (await node(folder, kind, "write.js", *words)).splitlines())
    for (package, resp), answer in zip(CLIENTS, answers, strict=True):
        assert answer == answer_to(engine, package, resp)
        await eventually(partial(_is_written_through, kind, f"{package}-{resp}"), within=30)

    await kind.worker.stop()
    [removed] = await commands.reports(kind, "recipe remove")
    assert removed["removed"]
    assert await (await open_engine(kind.redis_client, kind.settings.mappings[0])).libraries() == []
    if engine == "gears1":
        assert await kind.redis_client.execute_command("RG.DUMPREGISTRATIONS") == []


def answer_to(engine: str, package: str, resp: int) -> dict[str, Any]:
    """What a client is to be answered; only RedisGears 1 tells it of a refusal."""
    if engine != "gears1":
        return {"set": "OK", "number": "[2]" if package == "redis3" else [2], "refused": "OK"}
    reason = "ERR writethrough: refused: the document must be a JSON object, not an array"
    return {
        "set": "OK",
        "number": "[2]" if package == "redis3" or resp == 3 else [2],
        "refused": {"error": ERRORS[package], "message": reason},
    }


async def _is_written_through(stack: KindStack, document_id: str) -> bool:
    """MongoDB has the document, and what it can't hold is rolled back."""
    refused_is_there = await stack.redis_client.exists(f"todos:{document_id}-refused")
    return await stack.stored(document_id) == {"id": document_id, "n": 2} and not refused_is_there
