"""The pure decisions of the committer."""

import bson
import pytest

from gears.contract.changes import Remove, Upsert
from gears.contract.entries import Entry
from gears.contract.mapping import parse_mappings
from gears.contract.version import MOST_TERMS, first_term, highest, reaches, term_of, version_of
from gears.contract.write_tokens import EntryId
from worker.commit.read.decide import (
    Decision,
    Gone,
    KeyEntries,
    RefusedState,
    State,
    Verify,
    coalesce,
    decide,
    homes,
    moves,
)

MAPPING = parse_mappings("todos=test.todos:id")[0]
KEY = b"todos:1"


def entry(ms: int, event: str = "json.set", key: bytes = KEY, filled_from: int | None = None) -> Entry:
    return Entry(EntryId(ms, 0), key, event, filled_from)


def entries(*all_of_them: Entry) -> KeyEntries:
    return coalesce(all_of_them)[KEY]


def test_a_batch_holds_each_key_once() -> None:
    batch = coalesce([entry(1), entry(2, key=b"todos:2"), entry(3)])
    assert list(batch) == [KEY, b"todos:2"]
    assert [token.id for token in batch[KEY].tokens] == [EntryId(1, 0), EntryId(3, 0)]


def test_a_document_becomes_an_upsert_with_the_keys_id_and_version() -> None:
    decision = decide(MAPPING, entries(entry(1)), b'{"name":"a","id":7}', 7)
    assert isinstance(decision, Upsert)
    assert bson.decode(decision.document) == {"id": "1", "name": "a", "_sync": {"v": 7}}


def test_a_deleted_key_is_removed_whatever_was_written_before() -> None:
    assert decide(MAPPING, entries(entry(1), entry(2, "del")), Gone.DELETED, 7) == Remove("1", 7)


def test_an_evicted_key_is_no_delete() -> None:
    decision = decide(MAPPING, entries(entry(1)), Gone.LOST, 7)
    assert isinstance(decision, RefusedState)
    assert "evicted" in decision.reason


def test_a_key_of_another_type_is_left_alone() -> None:
    assert decide(MAPPING, entries(entry(1, "del")), Gone.FOREIGN, 7) is None


def test_a_fill_alone_is_verified() -> None:
    decision = decide(MAPPING, entries(entry(1, "fill", filled_from=5), entry(2, "fill", filled_from=6)), b"{}", 7)
    assert isinstance(decision, Verify)
    assert decision.entries.filled_from == 6


def test_a_write_after_a_fill_is_a_write() -> None:
    assert isinstance(decide(MAPPING, entries(entry(1, "fill", filled_from=5), entry(2)), b"{}", 7), Upsert)


@pytest.mark.parametrize("state", [b"{}", Gone.LOST])
def test_a_fill_after_a_write_is_the_roll_back_of_it(state: bytes | Gone) -> None:
    decision = decide(MAPPING, entries(entry(1), entry(2, "fill", filled_from=5)), state, 7)
    assert isinstance(decision, Verify)
    assert decision.entries.filled_from == 5


def test_a_backfill_brings_the_present_document() -> None:
    assert isinstance(decide(MAPPING, entries(entry(1, "backfill")), b"{}", 7), Upsert)


def test_a_backfill_hides_no_delete_before_it() -> None:
    batch = entries(entry(1, "del"), entry(2, "backfill"))
    assert decide(MAPPING, batch, Gone.DELETED, 7) == Remove("1", 7)
    assert batch.last_event == "del"


def test_a_key_that_is_gone_before_it_was_backfilled_is_left_alone() -> None:
    assert decide(MAPPING, entries(entry(1, "backfill")), Gone.LOST, 7) is None


@pytest.mark.parametrize("order", [("fill", "backfill"), ("backfill", "fill")])
def test_a_fill_beside_a_backfill_is_still_verified(order: tuple[str, str]) -> None:
    batch = entries(*(entry(n, event, filled_from=5 if event == "fill" else None) for n, event in enumerate(order)))
    assert isinstance(decide(MAPPING, batch, b"{}", 7), Verify)


@pytest.mark.parametrize(
    ("document", "names"),
    [
        (b"[1]", "object"),
        (b'"x"', "object"),
        (b'{"a":{"b":[9223372036854775808]}}', "'a.b.0'"),
        (b'{"_id":1}', "'_id'"),
        (b'{"_sync":1}', "'_sync'"),
        (b'{"$set":1}', "'$set'"),
        (b'{"a":{"x\\u0000y":1}}', "NUL"),
        (b'{"a":' * 100 + b"1" + b"}" * 100, None),
        (b'{"a":' * 101 + b"1" + b"}" * 101, "100 levels"),
        (b'{"a":"' + b"x" * 16 * 1024 * 1024 + b'"}', "bytes"),
    ],
    ids=["array", "string", "integer", "_id", "_sync", "dollar", "nul", "depth-100", "depth-101", "size"],
)
def test_what_mongodb_cannot_hold_is_refused_with_the_field_named(document: bytes, names: str | None) -> None:
    decision = decide(MAPPING, entries(entry(1)), document, 7)
    if names is None:
        assert isinstance(decision, Upsert)
    else:
        assert isinstance(decision, RefusedState)
        assert names in decision.reason


@pytest.mark.parametrize("key", [b"todos:\xff", b"todos:", b"todos:" + b"x" * 1025, b"todos:a\0b"])
def test_a_key_that_is_no_id_is_refused(key: bytes) -> None:
    decision = decide(MAPPING, coalesce([entry(1, key=key)])[key], b"{}", 7)
    assert isinstance(decision, RefusedState)
    assert decide(MAPPING, coalesce([entry(1, key=key)])[key], Gone.DELETED, 7) is None


def history(*steps: str) -> tuple[dict[bytes, Decision], dict[bytes, KeyEntries]]:
    """What is decided after these: `a` is a write, `-a` a delete, `a>b` a rename, `a>!` one to what is refused."""
    done: list[Entry] = []
    states: dict[bytes, State] = {}
    for step in steps:
        source, _, target = step.partition(">")
        key, to = (f"todos:{name}".encode() for name in (source.strip("-"), "x" * 1100 if target == "!" else target))
        if target:
            done += entry(len(done), "rename_from", key), entry(len(done) + 1, "rename_to", to)
            states[to], states[key] = states.get(key, b"{}"), Gone.DELETED
        else:
            done.append(entry(len(done), "del" if step.startswith("-") else "json.set", key))
            states[key] = Gone.DELETED if step.startswith("-") else b"{}"
    keys = coalesce(done)
    return {key: decide(MAPPING, found, states[key], 7) for key, found in keys.items()}, keys


@pytest.mark.parametrize(
    ("steps", "home"),
    [
        ("a>!", "a"),
        ("a a>!", "a"),
        ("a>b b>!", "a"),
        ("a>b b b>!", "b"),
        ("a>b b b>c c>!", "b"),
        ("a>b b>a a>!", "a"),
        ("a>b b>a a>c c>!", "a"),
        ("a>b -b b b>!", "b"),
        ("a>b b>c b b>!", "b"),
        ("a>! a", None),
        ("a>b b>! a", "b"),
        ("a>! a a>!", "a"),
    ],
)
def test_a_refused_document_goes_back_to_where_it_was_written_last(steps: str, home: str | None) -> None:
    decisions, keys = history(*steps.split())
    found = homes((d for d in decisions.values() if isinstance(d, RefusedState)), decisions, keys)
    assert list(found) == ([] if home is None else [f"todos:{home}".encode()])


@pytest.mark.parametrize(
    ("steps", "expected"),
    [
        ("a>b", {"b": "a"}),
        ("a>b b>c", {"b": "a", "c": "b"}),
        ("a>b b b>c", {"b": "a", "c": "b"}),
        ("a>b -b b", {}),
        ("a>b a", {}),
        ("a>b b>a", {}),
        ("a>b b>c b", {"c": "a"}),
    ],
)
def test_a_renamed_document_is_deleted_after_it_is_written(steps: str, expected: dict[str, str]) -> None:
    found = moves(*history(*steps.split()))
    assert {new[6:].decode(): old[6:].decode() for new, old in found.items()} == expected


@pytest.mark.parametrize(
    ("steps", "arrived"),
    [
        ("1 rename_to", True),
        ("1 move_to", True),
        ("1 rename_to, 1 json.numincrby", True),
        ("2 rename_to, 2 rename_from, 1 rename_to", True),
        ("2 rename_from, 1 rename_to", False),
        ("1 copy_to", False),
        ("1 rename_to, 1 del, 1 json.set", False),
        ("1 rename_to, 2 rename_from, 1 rename_to", False),
    ],
)
def test_what_came_from_outside_the_mapping_is_known(steps: str, arrived: bool) -> None:
    events = [step.split() for step in steps.split(", ")]
    found = entries(*(entry(n, event, f"todos:{key}".encode()) for n, (key, event) in enumerate(events)))
    assert found.arrived is arrived


def test_versions_order_as_terms_do_and_in_a_term_as_batches() -> None:
    versions = [version_of(term, batch) for term in (0, 1, 2, MOST_TERMS) for batch in (0, 1, 2**40 - 1)]
    assert sorted(versions) == versions
    assert [term_of(version) for version in versions] == sorted([0, 1, 2, MOST_TERMS] * 3)
    assert all(version < 2**63 for version in versions)
    assert highest(1) == version_of(1, 2**40 - 1)


def test_the_first_term_is_above_what_was_given_before_there_were_terms() -> None:
    now = 1_800_000_000_000
    for before in (0, (now << 20) + 7, (now + 10**9 << 20) + 5):
        assert version_of(first_term(before, now), 0) > max(before, now << 20)


@pytest.mark.parametrize("version", [0, 1, version_of(2_000_000, 5), 2**63 - 1])
def test_only_what_nobody_can_have_given_is_foreign(version: int) -> None:
    assert reaches(version, version) == (version < 2**63 - 1)
    assert not reaches(version - 1, version)
    assert reaches(version, version - 2**40) or version < 2**40 or version == 2**63 - 1
    assert not reaches(2**63 - 1, version)


@pytest.mark.parametrize("text", ["", "1", "1-", "-1", "a-b", "1-1-1", f"1-{2**40}", f"{2**43}-0", "²-1"])
def test_what_is_no_entry_id_is_not_taken_for_one(text: str) -> None:
    with pytest.raises(ValueError, match=r"not of the form|out of range"):
        EntryId.parse(text)
