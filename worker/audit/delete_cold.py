"""The option for teams without eviction: a document that Redis doesn't hold was deleted, so MongoDB drops it too.

Off by default. Absence proves little, so this asks for much: Redis can't have evicted the key, it has forgotten nothing
(a committer has checked that), most documents are there, and the document was committed by us. Each
delete goes over the sync stream, and only if the key is still absent at that moment.
"""

from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Any

from gears.engines import Engine
from gears.in_mongo.log.batches import Acked
from gears.in_mongo.store import Store
from gears.in_redis.client import Redis
from gears.progress.backlog import last_entry
from gears.progress.compare import Kind
from worker.audit.prove_drift import Proof, Prover
from worker.audit.repair import delete_absent
from worker.audit.wait_until_committed import wait_committed

MOST_COLD = 100_000
"""Cold documents that one audit deletes; the next one goes on."""

_WINDOW = 500


@dataclass(slots=True)
class Cold:
    """The cold documents that an audit finds, until all are found."""

    keys: list[bytes] = field(default_factory=list)

    def note(self, proofs: Sequence[Proof]) -> None:
        """Remember those that may be deleted in the end."""
        found = [proof.key for proof in proofs if proof.verdict.kind is Kind.COLD and not proof.verdict.legacy]
        self.keys += found[: MOST_COLD - len(self.keys)]


async def delete_cold(
    redis: Redis,
    store: Store,
    engine: Engine,
    prover: Prover,
    keys: Sequence[bytes],
    *,
    present: int,
    patience: float,
) -> tuple[int, str]:
    """Delete cold documents, if their absence means that they were deleted.

    Args:
        redis: client with replies as bytes.
        store: the mapping's documents in MongoDB.
        engine: the mapping's engine.
        prover: compares.
        keys: the cold documents' keys.
        present: how many documents are on both sides.
        patience: seconds without any commit after which commits are held up.

    Returns:
        How many were deleted, and why the others were not.

    Raises:
        As `worker.audit.repair.repair`.
    """
    if len(keys) > present:
        return 0, f"{len(keys):,} documents are cold and {present:,} are not: that looks like a loss"
    deleted = 0
    for start in range(0, len(keys), _WINDOW):
        settled = await prover.settle(keys[start : start + _WINDOW])
        window = Cold()
        window.note(settled.proofs)
        reason = await _why_not(redis, engine, store)  # after the keys were found absent: what emptied Redis shows
        if reason:
            return deleted, reason
        deleted += await delete_absent(engine, window.keys)
        newest = await last_entry(redis, engine.names)
        await wait_committed(redis, engine.mapping, newest, patience=patience)
    return deleted, ""


async def _why_not(redis: Redis, engine: Engine, store: Store) -> str:
    """Why a key's absence from Redis may not mean that it was deleted."""
    policy = str((await redis.info("memory")).get("maxmemory_policy"))
    if policy != "noeviction":
        return f"Redis's maxmemory-policy is {policy}, so that it may have evicted them; it must be noeviction"
    text: Any = await redis.get(engine.names.acked)
    acked = Acked.parse(text)
    newest = await store.log.newest()
    if newest is None or acked.version > newest.version:
        return "Redis says it has committed more than MongoDB knows of: they don't belong together"
    checked = await redis.get(engine.names.checked)
    return "" if checked == (await engine.life()).encode() else "Redis may have forgotten what it held"
