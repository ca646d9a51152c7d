"""From decisions to what MongoDB is to write, and to what has become of it; and how a commit is tried again."""

import pytest
from pymongo.errors import AutoReconnect, ExecutionTimeout, OperationFailure, PyMongoError

from gears.contract.changes import Remove, Upsert
from gears.contract.entries import Entry
from gears.contract.mapping import parse_mappings
from gears.contract.write_tokens import EntryId, Token
from gears.in_mongo.log.batches import Acked
from gears.in_mongo.unique_indexes.write_order import Outcome
from worker.commit.batch_to_write import Decided, ToWrite, batch_to_write, what_became
from worker.commit.read.decide import Gone, State, coalesce, decide
from worker.commit.read.read_batch import Batch
from worker.commit.try_again import TOGETHER, Amount

MAPPING = parse_mappings("todos=test.todos:id")[0]
VERSION = 7
ACKED = Acked(6, Token("life", EntryId(5, 0)))


def key(name: str) -> bytes:
    return f"todos:{name}".encode()


def entry(ms: int, name: str, event: str = "json.set") -> Entry:
    return Entry(EntryId(ms, 0), key(name), event, life="life")


def decided(entries: list[Entry], states: dict[str, State], newest: int | None = None) -> Decided:
    """A batch with these entries, whose states were read when `newest` was the last on the stream."""
    keys = coalesce(entries)
    batch = Batch(
        entries,
        list(keys.values()),
        {key(name): state for name, state in states.items()},
        Token("life", EntryId(newest, 0)) if newest is not None else None,
        str(ACKED),
        (b"", b""),
    )
    decisions = {k: decide(MAPPING, said, batch.states[k], VERSION) for k, said in keys.items()}
    return Decided(batch, VERSION, keys, decisions, {}, {})


def planned(batch: Decided, aside: tuple[bytes, ...] = ()) -> ToWrite:
    return batch_to_write(MAPPING, batch, acked=ACKED, lives={"before": EntryId(3, 0)}, aside=aside)


RENAME = [entry(6, "a"), entry(7, "a", "rename_from"), entry(8, "b", "rename_to")]


def test_documents_and_deletes_are_written_and_the_log_names_them() -> None:
    todo = planned(decided([entry(6, "a"), entry(7, "b", "del")], {"a": b"{}", "b": Gone.DELETED}, newest=9))
    assert {i: type(change) for i, change in todo.changes.changes.items()} == {"a": Upsert, "b": Remove}
    assert todo.logged.version == VERSION
    assert todo.logged.ids == ("a", "b")
    assert todo.logged.certain == ACKED.token
    assert todo.logged.upto == Token("life", EntryId(7, 0))
    assert todo.logged.newest == Token("life", EntryId(9, 0))
    assert todo.logged.lives == {"before": EntryId(3, 0), "life": EntryId(7, 0)}


def test_what_is_refused_is_not_written_but_logged() -> None:
    todo = planned(decided([entry(6, "a"), entry(7, "b")], {"a": b"{}", "b": b"[]"}))
    assert list(todo.changes.changes) == ["a"]
    assert list(todo.refusals) == [key("b")]
    assert todo.logged.ids == ("a", "b")
    assert todo.changes.beside == {"b": None}  # nothing becomes of what MongoDB holds of it


def test_a_batch_with_a_refused_key_that_is_no_id_names_no_documents() -> None:
    todo = planned(decided([entry(6, "a"), entry(7, "")], {"a": b"{}", "": b"{}"}))
    assert todo.logged.ids is None


def test_a_renamed_document_moves_and_stays_where_it_was_if_it_is_refused() -> None:
    moves = planned(decided(RENAME, {"a": Gone.DELETED, "b": b"{}"}))
    assert moves.changes.moves == {"b": "a"}
    assert moves.changes.sources == {"a"}
    refused = planned(decided(RENAME, {"a": Gone.DELETED, "b": b"[]"}))
    assert refused.changes.changes == {}
    assert {k: refusal.moved for k, refusal in refused.refusals.items()} == {key("a"): True, key("b"): False}


def test_what_waits_already_is_known_to_wait() -> None:
    batch = decided([entry(6, "a"), entry(7, "b")], {"a": b"{}", "b": b"{}"})
    assert planned(batch, aside=(key("a"),)).changes.patient == {"a"}


def test_what_mongodb_refuses_joins_what_was_refused_before_it_was_asked() -> None:
    batch = decided([entry(5, "c"), *RENAME, entry(9, "d")], {"a": Gone.DELETED, "b": b"{}", "c": b"[]", "d": b"{}"})
    todo = planned(batch)
    outcome = Outcome(refused={"b": "taken", "beside": "taken"}, failed={"d": "later"}, kept={"a"})
    became = what_became(MAPPING, batch, todo, outcome)
    assert {k: (r.seen, r.moved) for k, r in became.refusals.items()} == {
        key("c"): (b"[]", False),
        key("b"): (b"{}", False),
        key("a"): (None, True),
    }
    assert became.failed == {key("d"): "later"}
    assert [change.document_id for change in became.done] == ["a"]
    assert list(todo.refusals) == [key("c")]  # the plan stays what it was


@pytest.mark.parametrize(
    ("error", "tries", "most"),
    [
        (ExecutionTimeout("slow"), 1, 50),
        (OperationFailure("busy", 1), 1, 1000),
        (OperationFailure("busy", 1), TOGETHER, 50),
        (AutoReconnect("away"), TOGETHER, 1000),
    ],
)
def test_a_batch_is_halved_where_one_of_it_may_be_the_cause(error: PyMongoError, tries: int, most: int) -> None:
    amount = Amount(1000)
    amount.shrink(error, 100, tries=tries)
    assert amount.most == most


def test_a_batch_that_depends_on_others_grows_up_to_a_bound() -> None:
    amount = Amount(15_000)
    amount.grow({b"a"})
    amount.grow({b"b"})
    assert (amount.needed, amount.most) == ({b"a", b"b"}, 20_000)
    larger = Amount(30_000)
    larger.grow(())
    assert (larger.needed, larger.most) == (set(), 30_000)
