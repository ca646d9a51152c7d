"""Having MongoDB write a batch, while what follows it is read."""

from collections.abc import Awaitable, Callable
from time import monotonic

import anyio

from gears.in_mongo.client import MongoError
from gears.in_mongo.store import Store
from gears.in_mongo.unique_indexes.write_order import Outcome
from worker.commit.batch_to_write import Decided, ToWrite
from worker.reporter import Reporter


async def write_and_read_on(
    store: Store, reporter: Reporter, todo: ToWrite, read_on: Callable[[], Awaitable[Decided]]
) -> tuple[Outcome, Decided]:
    """Have MongoDB write, and meanwhile read what follows.

    Args:
        store: the mapping's documents in MongoDB.
        reporter: where to say how it goes.
        todo: what to write.
        read_on: reads what follows.

    Returns:
        What became of it, and what follows.

    Raises:
        MongoError: nothing is certain; do it again.
        Those of `read_on`, in a group.
    """
    following: list[Decided] = []
    outcomes: list[Outcome] = []
    failures: list[MongoError] = []

    async def read() -> None:
        following.append(await read_on())

    async with anyio.create_task_group() as tasks:
        tasks.start_soon(read)
        try:
            outcomes.append(await write(store, reporter, todo))
        except MongoError as error:
            failures.append(error)
    if failures:
        raise failures[0]
    return outcomes[0], following[0]


async def write(store: Store, reporter: Reporter, todo: ToWrite) -> Outcome:
    """Have MongoDB write; arguments and errors as those of `write_and_read_on`."""
    started = monotonic()
    with reporter.patiently("MongoDB"):
        outcome = await store.writer.commit(todo.changes, todo.logged)
    reporter.written(monotonic() - started)
    return outcome
