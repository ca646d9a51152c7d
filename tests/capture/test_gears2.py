"""RedisGears 2.0 ends a script that takes too long; what it did until then stays."""

from tests.support.stack import Stack

LARGE = b'{"a":[' + b",".join([b'{"a":1,"b":2,"c":3}'] * 400_000) + b"]}"
"""Redis takes three times the limit below for it."""


async def test_nobody_says_that_nothing_was_written_when_gears_ended_the_script(own_stack: Stack) -> None:
    await own_stack.start()
    await own_stack.redis_client.config_set("redisgears_2.lock-redis-timeout", "100")
    answer = await own_stack.client.put("/notes/a", content=LARGE, headers={"Content-Type": "application/json"})
    assert answer.status_code == 504
    assert answer.json()["type"] == "urn:writethrough:problem:outcome-unknown"
    assert await own_stack.redis_client.exists("notes:a")
    assert await own_stack.redis_client.xlen("sync:{notes}")
