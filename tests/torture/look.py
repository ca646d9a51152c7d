"""A look at all keys on both sides, again and again: what went back is seen before a sweep mends it."""

import anyio
import httpx
from pymongo.errors import PyMongoError

from tests.torture import documents
from tests.torture.clients import Recorder, Transport
from tests.torture.history import Side
from tests.torture.schedule import KEYS
from tests.torture.system import PREFIX, System

_PAUSES = (0.0, 0.05, 0.1, 0.1, 0.2, 0.2, 0.3, 0.3, 0.3, 0.3, 0.3)
"""Seconds before each look: all in all longer than the checker lets a deleted document be in MongoDB."""


async def look(system: System, recorder: Recorder) -> None:
    """Record what MongoDB holds and what the APIs answer, for some two seconds."""
    async with httpx.AsyncClient(transport=Transport(), timeout=1) as client:
        for n, pause in enumerate(_PAUSES):
            await anyio.sleep(pause)
            url = list(system.apis.values())[n % len(system.apis)]
            async with anyio.create_task_group() as tasks:
                tasks.start_soon(_in_mongo, system, recorder)
                for key in KEYS:
                    tasks.start_soon(_through_api, client, url, key, recorder)


async def _in_mongo(system: System, recorder: Recorder) -> None:
    start = recorder.now()
    try:
        found = {key: documents.value_stored(document) for key, document in (await system.stored()).items()}
    except PyMongoError:
        return
    for key in KEYS:
        recorder.seen("look", "find all", key, found.get(key), Side.MONGO, start)


async def _through_api(client: httpx.AsyncClient, url: str, key: str, recorder: Recorder) -> None:
    start = recorder.now()
    try:
        answer = await client.get(f"{url}/{PREFIX}/{key}")
    except httpx.HTTPError:
        return
    if answer.status_code in (200, 404):
        value = documents.value_in(answer.json()) if answer.status_code == 200 else None
        recorder.seen("look", "GET", key, value, Side.REDIS, start)
