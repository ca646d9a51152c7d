"""The pure decisions of the audit: what one key's two sides say of each other."""

from datetime import UTC, datetime
from typing import Any

import bson
import pytest
from bson import Decimal128, Int64, ObjectId

from gears.contract.mapping import parse_mappings
from gears.contract.mongo_form import Stored, read_stored
from gears.contract.version import foreign, highest
from gears.in_mongo.log.batches import Head
from gears.progress.compare import Kind, Other, RedisState, Verdict, compare, is_equal

MAPPING = parse_mappings("todos=test.todos:id")[0]
HEAD = Head(term=3, late=((60, 70), (80, 90)))
NEWEST = highest(HEAD.term)


def stored(version: int | None = 50, **fields: Any) -> Stored:
    sync = {} if version is None else {"_sync": {"v": Int64(version)}}
    found = read_stored(MAPPING, bson.encode({"_id": "o", "id": "1", **fields, **sync}))
    assert found is not None
    return found


def text(rest: bytes) -> bytes:
    """A document with its id in front."""
    return b'{"id":"1"' + (b"," if rest != b"{}" else b"") + rest[1:]


def verdict(state: RedisState, document: Stored | None, deleted_at: int | None = None) -> Verdict:
    return compare(MAPPING, state, document, deleted_at, HEAD)


@pytest.mark.parametrize(
    ("rest", "fields"),
    [
        (b'{"a":1,"b":[1,{"c":null}]}', {"a": 1, "b": [1, {"c": None}]}),
        (b'{"n":9007199254740993}', {"n": Int64(9007199254740993)}),
        (b'{"n":1.0}', {"n": 1.0}),
        (b'{"n":-0.0}', {"n": -0.0}),
        (b'{"at":{"$date":"2020-01-02T03:04:05Z"}}', {"at": datetime(2020, 1, 2, 3, 4, 5, tzinfo=UTC)}),
        (b'{"n":{"$numberDouble":"NaN"}}', {"n": float("nan")}),
        (b'{"r":{"$ref":"a","$id":1}}', {"r": {"$ref": "a", "$id": 1}}),
    ],
)
def test_the_same_document_is_equal(rest: bytes, fields: dict[str, Any]) -> None:
    assert is_equal(MAPPING, text(rest), stored(**fields))
    assert verdict(text(rest), stored(**fields)).kind is Kind.EQUAL


@pytest.mark.parametrize(
    ("rest", "fields", "differing"),
    [
        (b'{"n":1}', {"n": 1.0}, ("n",)),
        (b'{"n":1}', {"n": True}, ("n",)),
        (b'{"n":0}', {"n": False}, ("n",)),
        (b'{"n":1.0}', {"n": Int64(1)}, ("n",)),
        (b'{"n":null}', {}, ("n",)),
        (b"{}", {"n": None}, ("n",)),
        (b'{"a":{"b":[1,2]}}', {"a": {"b": [1, 3]}}, ("a.b.1",)),
        (b'{"a":[1,2]}', {"a": [1]}, ("a",)),
        (b'{"_id":"o"}', {}, ("_id",)),
        (b'{"n":0.0}', {"n": -0.0}, ("n",)),
        (b'{"n":"2020-01-02T03:04:06Z"}', {"n": datetime(2020, 1, 2, 3, 4, 5, tzinfo=UTC)}, ("n",)),
        (b'{"b":1,"a":1}', {"a": 1, "b": 1}, ("(the order of fields)",)),
    ],
)
def test_documents_that_differ_are_told_apart_by_field(
    rest: bytes, fields: dict[str, Any], differing: tuple[str, ...]
) -> None:
    assert not is_equal(MAPPING, text(rest), stored(**fields))
    found = verdict(text(rest), stored(**fields))
    assert (found.kind, set(found.fields)) == (Kind.STALE, set(differing))


@pytest.mark.parametrize("without", [b'{"a":1}', b'{"id":7,"a":1}', b'{"id":null,"a":1}'])
def test_a_document_without_its_id_is_drift(without: bytes) -> None:
    assert verdict(without, stored(a=1)) == Verdict(Kind.STALE, ("id",))


def test_at_most_five_fields_are_named() -> None:
    assert len(verdict(b'{"a":1,"b":1,"c":1,"d":1,"e":1,"f":1}', stored()).fields) == 5


@pytest.mark.parametrize(
    ("state", "document", "deleted_at", "kind"),
    [
        (b"{}", None, None, Kind.MISSING),
        (b"{}", None, 50, Kind.MISSING),
        (b"{}", None, NEWEST + 1, Kind.AHEAD),
        (b"{}", stored(n=1), None, Kind.STALE),
        (b"{}", stored(None, n=1), None, Kind.STALE),
        (b"{}", stored(NEWEST, n=1), None, Kind.STALE),
        (b"{}", stored(NEWEST + 1, n=1), None, Kind.AHEAD),
        (text(b"{}"), stored(NEWEST + 1), None, Kind.EQUAL),
        (Other.ABSENT, stored(), None, Kind.COLD),
        (Other.ABSENT, stored(NEWEST + 1), None, Kind.COLD),
        (Other.ABSENT, stored(50), 49, Kind.COLD),
        (Other.ABSENT, stored(50), 50, Kind.STALE),
        (Other.ABSENT, stored(None), 50, Kind.COLD),
        (Other.ABSENT, None, 50, None),
        (Other.FOREIGN, stored(), None, Kind.FOREIGN),
        (Other.FOREIGN, None, None, Kind.FOREIGN),
        (b"[1]", None, None, Kind.FOREIGN),
        (b"null", stored(), None, Kind.FOREIGN),
    ],
)
def test_every_pair_of_states_has_a_kind(
    state: RedisState, document: Stored | None, deleted_at: int | None, kind: Kind | None
) -> None:
    assert verdict(state, document, deleted_at).kind is kind


@pytest.mark.parametrize(
    ("state", "document", "deleted_at", "kind"),
    [
        (b"{}", stored(61, n=1), None, Kind.AHEAD),
        (b"{}", stored(69, n=1), None, Kind.AHEAD),
        (text(b"{}"), stored(69), None, Kind.EQUAL),
        (b"{}", stored(60, n=1), None, Kind.STALE),
        (b"{}", stored(70, n=1), None, Kind.STALE),
        (b"{}", None, 61, Kind.AHEAD),
        (b"{}", None, 60, Kind.MISSING),
        (b"{}", None, 85, Kind.AHEAD),
    ],
)
def test_what_came_late_is_ahead_unless_both_sides_are_equal(
    state: RedisState, document: Stored | None, deleted_at: int | None, kind: Kind
) -> None:
    assert verdict(state, document, deleted_at).kind is kind


def test_a_document_without_a_version_is_legacy() -> None:
    assert verdict(text(b"{}"), stored(None)) == Verdict(Kind.EQUAL, legacy=True)
    assert not verdict(text(b"{}"), stored()).legacy


def test_a_document_too_deep_to_be_read_is_drift_not_an_error() -> None:
    deep = b'{"a":' * 300 + b"1" + b"}" * 300
    assert verdict(deep, stored()).kind is Kind.STALE
    assert verdict(deep, None).kind is Kind.MISSING


@pytest.mark.parametrize("far", [foreign(NEWEST), 2**63 - 1])
def test_what_no_term_can_have_given_was_written_by_somebody_else(far: int) -> None:
    assert verdict(text(b'{"n":1}'), stored(far, n=2)) == Verdict(Kind.STALE, ("n",), legacy=True)
    assert verdict(text(b'{"n":1}'), stored(far, n=1)) == Verdict(Kind.EQUAL, (), legacy=True)
    assert verdict(Other.ABSENT, stored(far)) == Verdict(Kind.COLD, (), legacy=True)
    assert verdict(Other.ABSENT, stored(50), far).kind is Kind.COLD
    assert verdict(b'{"n":1}', None, far).kind is Kind.MISSING


@pytest.mark.parametrize(
    ("rest", "value"),
    [
        (b'{"n":"2020-01-02T03:04:05Z"}', datetime(2020, 1, 2, 3, 4, 5, tzinfo=UTC)),
        (b'{"n":"5f0c5f5b8f1c2b0001a0b0c1"}', ObjectId("5f0c5f5b8f1c2b0001a0b0c1")),
        (b'{"n":"10.50"}', Decimal128("10.50")),
        (b'{"n":null}', float("nan")),
        (b"{\"n\":\"DBRef('users', 'u1')\"}", {"$ref": "users", "$id": "u1"}),
        (b'{"n":12.917521550408113}', 12.917521550408111),
        (b'{"n":{"$date":"2020-01-02T03:04:05Z"}}', {"$date": "2020-01-02T03:04:05Z"}),
    ],
    ids=str,
)
def test_what_redis_lost_by_itself_is_given_back_to_it(rest: bytes, value: Any) -> None:
    assert verdict(text(rest), stored(n=value)).kind is Kind.AHEAD
    assert verdict(text(rest), stored(None, n=value)).kind is Kind.AHEAD
