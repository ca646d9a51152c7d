"""A plain client of Redis, which knows nothing of us; on RedisGears 1.x its replies wait for MongoDB."""

import json
from collections.abc import Iterator
from typing import Any

import anyio
from pymongo.errors import PyMongoError
from redis.exceptions import BusyLoadingError, RedisError, ResponseError

from gears.in_redis.client import connect
from tests.torture import documents
from tests.torture.clients import Recorder
from tests.torture.history import Outcome, Side, Write
from tests.torture.schedule import Step
from tests.torture.system import PREFIX, System

_PATIENCE = 4.0
"""Seconds until a client gives up: longer than RedisGears 1.x lets it wait."""

_TOO_LARGE = 2**63
"""An integer that RedisJSON holds and BSON doesn't."""

_QUEUED = ("not confirmed", "could not be queued")
"""What the recipe for RedisGears 1.x says of writes that are in Redis."""


class PlainClient:
    """One client.

    Args:
        name: of the client; begins with "plain".
        system: the system.
        recorder: the history.
    """

    def __init__(self, name: str, system: System, recorder: Recorder) -> None:
        self.name = name
        self._system = system
        self._recorder = recorder
        self._redis = connect(system.setup.redis_url, timeout=_PATIENCE)
        self._success = Outcome.ACKNOWLEDGED if system.engine == "gears1" else Outcome.QUEUED

    async def run(self, steps: Iterator[Step], pause: float) -> None:
        """Do these steps until cancelled, one in so many seconds at most."""
        try:
            for step in steps:
                await anyio.sleep(pause)
                if step.kind == "find":
                    await self._find(step.key)
                elif step.kind == "MULTI":
                    await self._both(step)
                else:
                    await self._one(step)
        finally:
            with anyio.CancelScope(shield=True):
                await self._redis.aclose()

    async def _one(self, step: Step) -> None:
        deletes = step.kind in ("DEL", "JSON.DEL")
        tag = None if deletes else self._recorder.tag(self.name)
        key = f"{PREFIX}:{step.key}"
        document = {} if tag is None else documents.document(tag)
        poison = step.kind == "JSON.SET poison"
        commands = {
            "JSON.SET": ("JSON.SET", key, "$", json.dumps(document)),
            "JSON.SET path": ("JSON.SET", key, "$.v", json.dumps(tag)),
            "JSON.SET poison": ("JSON.SET", key, "$", json.dumps(document | {"n": _TOO_LARGE})),
            "JSON.MERGE": ("JSON.MERGE", key, "$", json.dumps({"v": tag})),
            "DEL": ("DEL", key),
            "JSON.DEL": ("JSON.DEL", key),
        }
        write = self._recorder.begin(self.name, step.kind, step.key, tag)
        success = Outcome.POISON if poison else self._success
        try:
            reply: Any = await self._redis.execute_command(*commands[step.kind])
        except (RedisError, OSError) as error:
            reply = error
        self._conclude(write, reply, success)

    async def _both(self, step: Step) -> None:
        """Two documents in one MULTI, whose reply waits for nobody."""
        async with self._redis.pipeline(transaction=True) as pipeline:
            writes = []
            for key in (step.key, step.other):
                tag = self._recorder.tag(self.name)
                pipeline.execute_command("JSON.SET", f"{PREFIX}:{key}", "$", json.dumps(documents.document(tag)))
                writes.append(self._recorder.begin(self.name, step.kind, key, tag))
            try:
                replies: list[Any] = await pipeline.execute(raise_on_error=False)
            except (RedisError, OSError) as error:
                replies = [error, error]
            for write, reply in zip(writes, replies, strict=True):
                self._conclude(write, reply, Outcome.QUEUED)

    def _conclude(self, write: Write, reply: Any, success: Outcome) -> None:
        match reply:
            case BusyLoadingError():
                outcome = Outcome.NOTHING
            case ResponseError():
                outcome = _of_error(str(reply))
            case Exception():
                outcome = Outcome.UNKNOWN
            case None | 0:
                outcome = Outcome.NOTHING
            case _:
                outcome = success
        self._recorder.end(write, outcome, repr(reply))

    async def _find(self, key: str) -> None:
        start = self._recorder.now()
        try:
            found = documents.value_stored((await self._system.stored(key)).get(key))
        except PyMongoError:
            return
        self._recorder.seen(self.name, "find", key, found, Side.MONGO, start)


def _of_error(message: str) -> Outcome:
    if "refused" in message:
        return Outcome.REFUSED
    return Outcome.QUEUED if any(words in message for words in _QUEUED) else Outcome.NOTHING
