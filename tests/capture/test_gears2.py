"""RedisGears 2.0 ends a script that takes too long; what it did until then stays."""

from pathlib import Path

from tests.support.stack import Stack, eventually

LARGE = b'{"a":[' + b",".join(b'{"n":%d}' % n for n in range(400_000)) + b"]}"
"""Redis takes some 300 ms for it."""


async def test_nobody_says_that_nothing_was_written_when_gears_ended_the_script(tmp_path: Path) -> None:
    stack = Stack(tmp_path)

    async def stored() -> bool:
        found = await stack.stored("a", "notes")
        return found is not None and len(found["a"]) == 400_000

    try:
        await stack.start()
        await stack.redis_client.config_set("redisgears_2.lock-redis-timeout", "100")
        answer = await stack.client.put("/notes/a", content=LARGE, headers={"Content-Type": "application/json"})
        assert answer.status_code == 504
        assert answer.json()["type"] == "urn:writethrough:problem:outcome-unknown"
        assert await stack.redis_client.exists("notes:a")
        await eventually(stored, within=60)
    finally:
        await stack.close()
