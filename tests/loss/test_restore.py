"""`python -m worker restore` warms Redis from MongoDB."""

import sys

import anyio

from gears.engines import Engine, open_engine
from tests.support.engines import uncaptured
from tests.support.stack import Stack

DOCUMENTS = 350


async def restore(stack: Stack) -> tuple[int, str, str]:
    """Its exit code, stdout and stderr."""
    command = [sys.executable, "-m", "worker", "restore", "--mapping", "todos"]
    ended = await anyio.run_process(command, env=stack.env, check=False)
    return ended.returncode, ended.stdout.decode(), ended.stderr.decode()


async def evict(stack: Stack, engine: Engine, ids: list[str]) -> None:
    """Take keys away without a delete."""
    for document_id in ids:
        await uncaptured(engine, document_id, None)


async def test_cold_documents_come_back_without_new_versions_and_deleted_ones_do_not(own_stack: Stack) -> None:
    await own_stack.start(own_stack.redis, own_stack.mongo)
    worker = own_stack.only_committing()
    await worker.start()
    try:
        engine = await open_engine(own_stack.redis_client, own_stack.settings.mappings[0])
        for n in range(DOCUMENTS):
            await own_stack.set(str(n), {"n": n})
        await own_stack.redis_client.delete("todos:0")
        await own_stack.drained()
        before = await own_stack.todos.find({}).sort("id", 1).to_list()
        await evict(own_stack, engine, [str(n) for n in range(1, DOCUMENTS - 10)])
        assert await restore(own_stack) == (
            0,
            "todos: 339 documents given to Redis; 10 were there; 0 left alone, being written to or deleted\n",
            "",
        )
        assert await own_stack.redis_client.exists("todos:0") == 0
        for n in (1, 170, DOCUMENTS - 1):
            assert (await own_stack.get(str(n)))["n"] == n
        await own_stack.drained()
        assert await own_stack.todos.find({}).sort("id", 1).to_list() == before, "nothing was committed"
        await evict(own_stack, engine, ["1"])
        _, said, _ = await restore(own_stack)
        assert "1 documents given to Redis; 348 were there" in said
    finally:
        await worker.kill()


async def test_without_a_committer_it_says_so(own_stack: Stack) -> None:
    await own_stack.start(own_stack.redis, own_stack.mongo)
    engine = await open_engine(own_stack.redis_client, own_stack.settings.mappings[0])
    await engine.install()
    await own_stack.todos.insert_many([{"id": str(n)} for n in range(5)])
    code, _, said = await restore(own_stack)
    assert code == 2
    assert "no worker is at work" in said
