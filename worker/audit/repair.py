"""Repair of drift, in the direction that the proof says.

What must go to MongoDB is put on the sync stream again, so that the committer stays the one writer. Where MongoDB is
ahead, Redis is given what MongoDB holds.
"""

from collections.abc import Sequence
from functools import partial

import anyio
import structlog

from gears.contract.entries import BACKFILL
from gears.contract.mongo_form import text_of
from gears.contract.version import version_of
from gears.engines import Absent, Engine
from gears.errors import ForeignKey, PreconditionFailed, RedisRefused, Unchecked
from gears.in_mongo.store import Store
from gears.process.failpoint import reached
from gears.progress.compare import DRIFT, Kind, Other
from worker.audit.prove_drift import Proof, Prover

log = structlog.get_logger()

DIFFERS = "it still differs"
"""Why a key was left, when nothing more is known."""


_AT_ONCE = 20
_NO_LIMIT = 2**31


async def repair(store: Store, engine: Engine, prover: Prover, drift: Sequence[Proof]) -> dict[bytes, str]:
    """Repair proven drift, unless it was refused before, and compare it once more.

    Args:
        store: the mapping's documents in MongoDB.
        engine: the mapping's engine.
        prover: compares.
        drift: missing, stale or ahead keys.

    Returns:
        The keys that were left, each with the reason.

    Raises:
        CouldNotCompare: commits are held up.
        MongoError, RedisError, RedisAway, OutcomeUnknown, CaptureMissing: it isn't complete; doing it again does no
            harm.
    """
    reasons = await _refused_before(store, drift)
    tried = [proof for proof in drift if proof.key not in reasons]
    await _bring_together(store, engine, tried)
    settled = await prover.settle([proof.key for proof in tried])
    reasons |= await _refused_before(store, tried)
    different = {proof.key for proof in settled.proofs if proof.verdict.kind in DRIFT}
    for key in different | set(settled.unsettled):
        reasons.setdefault(key, DIFFERS)
    return reasons


async def delete_absent(engine: Engine, keys: Sequence[bytes]) -> int:
    """Capture the delete of each key that Redis doesn't hold, so that it is committed; returns how many.

    Raises:
        RedisError, RedisAway, OutcomeUnknown, CaptureMissing, RedisRefused: it isn't complete.
    """
    deleted = 0

    async def delete(document_id: str) -> None:
        nonlocal deleted
        try:
            await engine.delete(document_id, Absent(), backlog_limit=_NO_LIMIT)
        except (PreconditionFailed, ForeignKey, Unchecked):
            return  # it is back, or Redis may have forgotten it
        deleted += 1

    for start in range(0, len(keys), _AT_ONCE):
        async with anyio.create_task_group() as tasks:
            for key in keys[start : start + _AT_ONCE]:
                tasks.start_soon(delete, engine.mapping.id_of(key))
        reached("absent keys deleted")
    return deleted


async def _bring_together(store: Store, engine: Engine, proofs: Sequence[Proof]) -> None:
    """Repair; whether it was repaired shows when the keys are compared again."""
    await _backfill(engine, [proof for proof in proofs if proof.verdict.kind is not Kind.AHEAD])
    for proof in proofs:
        if proof.verdict.kind is Kind.AHEAD:
            await _roll_back(engine, store, proof)
            reached("one of them rolled back")


async def _refused_before(store: Store, proofs: Sequence[Proof]) -> dict[bytes, str]:
    """Those keys whose present document MongoDB has refused, each with the reason."""
    return await store.dead_letters.refused(
        {proof.key: proof.state for proof in proofs if isinstance(proof.state, bytes)}
    )


async def _backfill(engine: Engine, proofs: Sequence[Proof]) -> None:
    async with anyio.create_task_group() as tasks:
        for proof in proofs:
            event = "del" if proof.state is Other.ABSENT else BACKFILL
            tasks.start_soon(partial(engine.backfill, proof.key, event, life=proof.life))
    reached("backfills queued")


async def _roll_back(engine: Engine, store: Store, proof: Proof) -> None:
    """Give Redis what MongoDB holds, which is no news any more: what Redis gets from now on is newer."""
    document_id, held = engine.mapping.id_of(proof.key), proof.mongo_version or 0
    document = None if proof.stored is None else await text_of(engine.mapping, proof.stored)
    version = 0 if proof.stored is None else held
    seen = proof.state if isinstance(proof.state, bytes) else b""
    try:
        given = await engine.roll_back(
            document_id, seen, document, version=version, since=proof.newest, life=proof.life
        )
    except RedisRefused as error:
        log.error("Redis refused a roll-back", key=repr(proof.key)[1:], error=str(error))
        return
    if given and proof.head.is_news(held):
        await store.set_version(document_id, held, version_of(proof.head.term, 0))
