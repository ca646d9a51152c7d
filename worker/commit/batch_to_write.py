"""From what is decided about a batch to what MongoDB is to write, and to what has become of it: pure.

Documents that MongoDB can't hold are left out, and so is the delete of a document that was renamed to one of them. What
else the log and the order of writes need to know is told beside.
"""

from collections.abc import Collection, Iterable
from collections.abc import Mapping as Dict
from contextlib import suppress
from dataclasses import dataclass

from gears.contract.changes import Change, Remove, Upsert
from gears.contract.mapping import Mapping
from gears.contract.write_tokens import EntryId, Token
from gears.errors import Refused
from gears.in_mongo.log.batches import Acked, Logged, going_on
from gears.in_mongo.unique_indexes.write_order import Changes, Outcome, moved_from
from worker.commit.read.decide import Decision, KeyEntries, RefusedState, Verify, moves
from worker.commit.read.read_batch import Batch

_SOURCE_STAYS = "what it was renamed to was refused"


@dataclass(frozen=True, slots=True)
class Decided:
    """A batch, and what to do about each of its keys.

    Args:
        batch: the batch.
        version: of all that is written of it.
        keys: what it says of each key, by key.
        decisions: what to do, by key.
        refused: entries that were refused by a committer that stopped before it said so, with the reasons.
        beside: what Redis holds of other documents, by id, as changes for MongoDB.
    """

    batch: Batch
    version: int
    keys: dict[bytes, KeyEntries]
    decisions: dict[bytes, Decision]
    refused: dict[Token, str]
    beside: dict[str, Change | None]


@dataclass(frozen=True, slots=True)
class ToWrite:
    """What is to be done about a batch.

    Args:
        changes: what MongoDB is to write.
        logged: the batch, for the log.
        refusals: what isn't written, by key, since MongoDB can't hold it.
        checks: what Redis was given, to see whether MongoDB still holds that.
    """

    changes: Changes
    logged: Logged
    refusals: dict[bytes, RefusedState]
    checks: list[Verify]


@dataclass(frozen=True, slots=True)
class WrittenBatch:
    """What became of a batch.

    Args:
        done: the changes that are durable.
        refusals: by key, what MongoDB can't hold.
        failed: keys that MongoDB didn't take now, with the reasons.
    """

    done: list[Change]
    refusals: dict[bytes, RefusedState]
    failed: dict[bytes, str]


def batch_to_write(
    mapping: Mapping, decided: Decided, *, acked: Acked, lives: Dict[str, EntryId], aside: Collection[bytes]
) -> ToWrite:
    """What is to be done about a batch.

    Args:
        mapping: the mapping.
        decided: the batch.
        acked: what is acknowledged before it.
        lives: what is committed of the latest lives before it.
        aside: keys that are set aside.
    """
    batch, decisions, keys = decided.batch, decided.decisions, decided.keys
    checks = [decision for decision in decisions.values() if isinstance(decision, Verify)]
    refusals = {key: decision for key, decision in decisions.items() if isinstance(decision, RefusedState)}
    sources = moves(decisions, keys)
    for source in moved_from(sources, refusals):
        refusals[source] = RefusedState(keys[source], _SOURCE_STAYS, None, moved=True)
    changes = {
        decision.document_id: decision
        for key, decision in decisions.items()
        if isinstance(decision, Upsert | Remove) and key not in refusals
    }
    by_id = {mapping.key(i).encode(): i for i in changes}
    moved = {
        by_id[target]: by_id[source]
        for target, source in sources.items()
        if target not in refusals and source not in refusals
    }
    last = batch.last(acked.token)
    logged = Logged(
        decided.version,
        upto=last,
        newest=batch.newest if batch.newest is not None and batch.newest.id > last.id else last,
        certain=acked.token,
        lives=going_on(lives, batch.committed),
        ids=_ids(mapping, refusals.values(), changes),
        beside=tuple(decided.beside),
    )
    others = {key for key in decisions if key not in by_id}
    todo = Changes(
        changes,
        moved,
        decided.beside | _without_change(mapping, others),
        {i for i in changes if mapping.key(i).encode() in aside},
    )
    return ToWrite(todo, logged, refusals, checks)


def what_became(mapping: Mapping, decided: Decided, todo: ToWrite, outcome: Outcome) -> WrittenBatch:
    """What became of a batch.

    Args:
        mapping: the mapping.
        decided: the batch.
        todo: what was to be done about it.
        outcome: what MongoDB has made of the changes.
    """
    keys, refusals = decided.keys, dict(todo.refusals)
    for document_id, reason in outcome.refused.items():
        key = mapping.key(document_id).encode()
        seen = decided.batch.states.get(key)
        if key in keys:  # what is beside the batch is refused, if it still is, when its own batch comes
            refusals[key] = RefusedState(keys[key], reason, seen if isinstance(seen, bytes) else None)
    for document_id in outcome.kept:
        key = mapping.key(document_id).encode()
        refusals[key] = RefusedState(keys[key], _SOURCE_STAYS, None, moved=True)
    changes = todo.changes.changes
    done = [c for i, c in changes.items() if i not in outcome.refused and i not in outcome.failed]
    return WrittenBatch(done, refusals, {mapping.key(i).encode(): reason for i, reason in outcome.failed.items()})


def _ids(mapping: Mapping, refusals: Iterable[RefusedState], changes: Iterable[str]) -> tuple[str, ...] | None:
    """What there is a document, a delete or a dead letter of, once this is committed."""
    try:
        return (*changes, *(mapping.id_of(refusal.entries.key) for refusal in refusals))
    except Refused:
        return None


def _without_change(mapping: Mapping, keys: Iterable[bytes]) -> dict[str, None]:
    """The documents of these keys: nothing becomes of what MongoDB holds of them."""
    found: dict[str, None] = {}
    for key in keys:
        with suppress(Refused):
            found[mapping.id_of(key)] = None
    return found
