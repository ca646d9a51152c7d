"""Writing a dead letter's document again, unless its key was written since."""

from enum import StrEnum

import anyio

from gears.contract.write_tokens import Token
from gears.engines import Absent, Engine, Equals
from gears.errors import PreconditionFailed, Refused
from gears.in_mongo.dead_letters import KeptLetter, letter_key
from gears.in_mongo.store import Store
from gears.process.settings import Settings
from gears.progress.backlog import last_entry
from gears.progress.refusals import refusal_of
from gears.progress.standing_of_token import standing
from worker.audit.wait_until_committed import wait_committed

_POLL = 0.02


class Outcome(StrEnum):
    """What came of it."""

    COMMITTED = "committed"
    """MongoDB has the document; the letter is dropped."""
    REFUSED = "refused"
    """MongoDB refused it again; there is a new letter instead."""
    PENDING = "pending"
    """It is written, and not committed yet; the letter stays."""
    NOT_WRITTEN = "not written"
    """Nothing was written; the letter stays."""


async def retry_letter(engine: Engine, store: Store, letter: KeptLetter, settings: Settings) -> tuple[Outcome, str]:
    """Write the document again, and wait for what becomes of it.

    Args:
        engine: the mapping's engine.
        store: where the mapping's letters are kept.
        letter: one of them.
        settings: how long to wait, and how many entries may wait.

    Returns:
        What came of it, and why, where that isn't plain.

    Raises:
        BacklogFull, CaptureMissing, ForeignKey, OutcomeUnknown, RedisAway, RedisRefused, Unchecked: see `Engine`.
        CouldNotCompare: commits are held up, so that nobody can tell whether the key was written since.
        MongoError, RedisError: a server is away.
    """
    mapping, key = engine.mapping, letter.key.encode()
    if not letter.document or letter.size > len(letter.document):
        return Outcome.NOT_WRITTEN, "its document isn't kept whole; write it anew"
    try:
        document_id = mapping.id_of(key)
    except Refused as error:
        return Outcome.NOT_WRITTEN, error.reason
    if letter_key(mapping.key(document_id).encode()) != letter.key:
        return Outcome.NOT_WRITTEN, "its key isn't kept whole; write it anew"
    present = await engine.redis.execute_command("JSON.GET", key)
    newest = await last_entry(engine.redis, engine.names)
    await wait_committed(engine.redis, mapping, newest, patience=settings.mongo_timeout)
    stored, deleted = await store.documents.versions([document_id]), await store.tombstones.versions([document_id])
    if max(stored.get(document_id, 0), deleted.get(document_id, 0)) > letter.fence:
        return Outcome.NOT_WRITTEN, "its key was written since; drop the letter, or write the key anew"
    condition = Absent() if present is None else Equals(present)
    try:
        written = await engine.put(document_id, letter.document, condition, backlog_limit=settings.backlog_limit)
    except PreconditionFailed:
        return Outcome.NOT_WRITTEN, "its key was written just now"
    return await _outcome(engine, store, letter, written.token, within=settings.commit_timeout)


async def _outcome(
    engine: Engine, store: Store, letter: KeptLetter, token: Token, *, within: float
) -> tuple[Outcome, str]:
    found = None
    with anyio.move_on_after(within):
        while found in (None, "pending"):
            await anyio.sleep(_POLL)
            found = await standing(engine.redis, engine.mapping, store.log, token)
    match found:
        case "committed":
            await store.dead_letters.drop(letter.id)
            return Outcome.COMMITTED, ""
        case "refused":
            reason = await refusal_of(engine.redis, engine.names, token)
            await store.dead_letters.drop(letter.id)
            return Outcome.REFUSED, reason or ""
        case _:
            return Outcome.PENDING, f"not confirmed within {within:g} s"
