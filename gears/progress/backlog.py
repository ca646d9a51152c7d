"""How far behind a mapping is, and what its committer says of itself."""

from dataclasses import dataclass

from pydantic import BaseModel
from redis.exceptions import ResponseError

from gears.contract.mapping import Mapping
from gears.contract.redis_names import Names
from gears.contract.write_tokens import ZERO, EntryId
from gears.in_mongo.log.batches import Acked
from gears.in_redis.client import Redis, read_at_once, run_of


class WorkerState(BaseModel):
    """What the committer that holds the lease says of itself; it vanishes when the committer does."""

    owner: str
    run: str
    """The run of the Redis server that it works with; see `gears.in_redis.client.server_run`."""
    state: str
    """`committing`; `retrying` while MongoDB fails; `blocked` while something needs a person; `preparing` while an
    index is built; `restoring` while Redis is given back what it lost."""
    reason: str = ""
    since: float
    """When this state began, in seconds of the Unix epoch."""
    committed: int = 0
    """Entries committed since this committer started."""
    refused: int = 0
    """Entries refused since then."""
    retries: int = 0
    """Commits that failed and were done again since then."""
    batches: int = 0
    """Batches that MongoDB has written since then."""
    batch_seconds: float = 0.0
    """How long it took for all of them."""
    warmed: int = 0
    """Documents that Redis has been given since it was found empty, while that goes on."""
    to_warm: int = 0
    """About how many there are; 0 when Redis has all that it is to be given."""
    aside: int = 0
    """Keys that are set aside: MongoDB doesn't take them now, though it takes others."""
    aside_reason: str = ""
    """Why, of one of them."""


@dataclass(frozen=True, slots=True)
class Backlog:
    """Where a sync stream stands.

    Args:
        last_entry: id of the newest entry ever added.
        acked: what is acknowledged.
        entries: uncommitted entries.
        oldest: id of the oldest uncommitted entry; None without a backlog.
        lag: age of the oldest uncommitted entry in seconds by Redis's clock; 0 without a backlog.
        worker: the committer's own words; None when no committer is at work, or none since Redis was restarted.
        added: entries ever added; None where Redis doesn't count them, before 7.0.
    """

    last_entry: EntryId
    acked: Acked
    entries: int
    oldest: EntryId | None
    lag: float
    worker: WorkerState | None
    added: int | None = None


async def last_entry(redis: Redis, names: Names) -> EntryId:
    """Id of the newest entry ever added to the stream, also when it has been trimmed since."""
    return (await _ever_added(redis, names))[0]


async def _ever_added(redis: Redis, names: Names) -> tuple[EntryId, int | None]:
    """That id, and how many entries were added in all, where Redis counts them."""
    try:
        info = await redis.xinfo_stream(names.stream)
    except ResponseError as error:
        if "no such key" in str(error):
            return ZERO, 0
        raise
    return EntryId.parse(info["last-generated-id"]), info.get("entries-added")


async def read_backlog(redis: Redis, mapping: Mapping) -> Backlog:
    """Read where the mapping's sync stream stands."""
    names = Names(mapping.prefix)
    newest, added = await _ever_added(redis, names)
    acked, entries, first, (seconds, microseconds), worker, info = await read_at_once(
        redis,
        ("GET", names.acked),
        ("XLEN", names.stream),
        ("XRANGE", names.stream, "-", "+", "COUNT", 1),
        ("TIME",),
        ("HGETALL", names.worker),
        ("INFO", "server"),
    )
    oldest = EntryId.parse(first[0][0]) if first else None
    lag = max(0.0, int(seconds) + int(microseconds) / 1e6 - oldest.ms / 1e3) if oldest else 0.0
    return Backlog(
        last_entry=newest,
        acked=Acked.parse(acked),
        entries=entries,
        oldest=oldest,
        lag=round(lag, 3),
        worker=_worker_state(dict(zip(worker[::2], worker[1::2], strict=True)), run_of(info)),
        added=added,
    )


def _worker_state(reported: dict[bytes, bytes], run: bytes) -> WorkerState | None:
    if reported.get(b"run") != run:  # what Redis found in its file when it was restarted
        return None
    return WorkerState.model_validate({name.decode(): value.decode() for name, value in reported.items()})
