"""How it all ended: heal everything, wait until it is well, compare both sides."""

import json
import subprocess
import sys
import time
from collections.abc import Awaitable, Callable
from typing import Any

import anyio
import httpx
from redis.exceptions import RedisError

from tests.torture import documents
from tests.torture.clients import Recorder, Transport
from tests.torture.faults import Faults
from tests.torture.history import Side
from tests.torture.schedule import KEYS
from tests.torture.system import PREFIX, System

_WITHIN = 90.0
"""Seconds in which everything must be well again."""

_PAUSE = 0.3


class NotWell(Exception):
    """The system did not recover, though nothing hurts it any more; the message says what is wrong."""


async def recover(system: System, faults: Faults) -> float:
    """Heal everything and wait until all is well; returns how many seconds that took.

    Raises:
        NotWell: it didn't recover.
    """
    began = time.monotonic()
    await faults.heal()
    async with httpx.AsyncClient(transport=Transport(), timeout=5) as client:
        await _nothing_wrong(lambda: _trouble(system, client))
    return time.monotonic() - began


async def compare(system: System, recorder: Recorder) -> dict[str, Any]:
    """Read all that is cold back into Redis, audit, and record the final state of both sides.

    Returns:
        What the last audit said.

    Raises:
        NotWell: an audit finds drift, again and again, or can't compare.
    """
    report: dict[str, Any] = {}
    async with httpx.AsyncClient(transport=Transport(), base_url=next(iter(system.apis.values())), timeout=5) as client:
        for key in KEYS:
            await client.get(f"/{PREFIX}/{key}")
        await _nothing_wrong(lambda: _trouble(system, client))
    await _nothing_wrong(lambda: _drift(system, report))
    for key in KEYS:
        start = recorder.now()
        text = await system.redis.execute_command("JSON.GET", f"{PREFIX}:{key}")
        document = None if text is None else json.loads(text)
        _record(recorder, key, documents.value_in(document), document, Side.REDIS, start)
        stored = (await system.stored(key)).get(key)
        _record(recorder, key, documents.value_stored(stored), stored, Side.MONGO, start)
    return report


def _record(
    recorder: Recorder, key: str, value: str | None, document: dict[str, Any] | None, side: Side, start: float
) -> None:
    names = [name for name in document or {} if name not in ("id", "_id", "_sync")]
    recorder.seen("end", "final", key, value, side, start, final=json.dumps([value, names]))


async def _nothing_wrong(what: Callable[[], Awaitable[str]]) -> None:
    """Ask what is wrong until nothing is."""
    deadline = time.monotonic() + _WITHIN
    while reason := await what():
        if time.monotonic() > deadline:
            raise NotWell(f"not well within {_WITHIN:g} s: {reason}")
        await anyio.sleep(_PAUSE)


async def _trouble(system: System, client: httpx.AsyncClient) -> str:
    """What keeps it from being well; empty when nothing does."""
    for url in system.apis.values():
        try:
            answer = await client.get(f"{url}/readyz")
            if answer.status_code != 200:
                return answer.text
            state = (await client.get(f"{url}/sync")).json()["mappings"][PREFIX]
        except (httpx.HTTPError, RedisError) as error:
            return repr(error)
        if state["backlog"] or state["watermark"] != state["last_entry"]:
            return f"{state['backlog']} entries wait, {state['watermark']} of {state['last_entry']} is committed"
    return ""


async def _drift(system: System, report: dict[str, Any]) -> str:
    """What an audit finds."""
    command = [sys.executable, "-m", "worker", "audit", "--json"]
    done = await anyio.run_process(command, check=False, stderr=subprocess.DEVNULL, env=system.direct_env)
    report.clear()
    if done.stdout:
        report |= json.loads(done.stdout)
    return f"the audit exits with {done.returncode}: {report}" if done.returncode else ""
