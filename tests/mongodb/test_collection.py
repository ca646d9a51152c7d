"""Whether documents can be kept in a collection as it is: decided from what a server says of it."""

from typing import Any

import pytest

from gears.contract.mapping import Mapping
from gears.in_mongo.collection.fitness import Collection, Index, unfit
from gears.in_mongo.collection.inspect import progress_of
from gears.in_mongo.collection.wanted_index import in_the_way, wanted_index

THINGS = Mapping("things", "test", "things", "id")
BY_ID = Mapping("things", "test", "things", "_id")
BY_OID = Mapping("things", "test", "things", "_id", id_type_name="oid")
ENGLISH = {"locale": "en", "strength": 2}

Document = dict[str, Any]


def listed(**options: Any) -> Document:
    return {"name": "things", "type": "collection", "options": options}


def sharded(**key: Any) -> Document:
    return {"_id": "test.things", "key": key}


@pytest.mark.parametrize("mapping", [THINGS, BY_ID, BY_OID])
@pytest.mark.parametrize(
    "found",
    [
        {},
        {"listed": {}},
        {"listed": listed()},
        {"listed": listed(validator={"n": {"$type": "string"}}, clusteredIndex={"key": {"_id": 1}, "unique": True})},
        {"sharding": {"_id": "test.things", "dropped": True}},
        {"sharding": sharded(tenant=1) | {"unsplittable": True}},
    ],
    ids=["nothing known", "not there yet", "ordinary", "with a validator", "was sharded", "whole on one shard"],
)
def test_fit(found: Document, mapping: Mapping) -> None:
    assert unfit(parse(**found), mapping) is None


@pytest.mark.parametrize(
    ("mapping", "sharding", "fit"),
    [
        (THINGS, sharded(id=1), True),
        (THINGS, sharded(id="hashed"), True),
        (THINGS, sharded(id=1, tenant=1), False),
        (THINGS, sharded(tenant=1, id=1), False),
        (THINGS, sharded(_id="hashed"), False),
        (BY_ID, sharded(_id="hashed"), True),
        (BY_ID, sharded(_id=1), True),
        (BY_OID, sharded(id=1), False),
    ],
)
def test_sharded(mapping: Mapping, sharding: Document, fit: bool) -> None:
    reason = unfit(parse(listed(), sharding=sharding), mapping)
    assert (reason is None) is fit
    if reason is not None:
        assert f'sh.reshardCollection("test.things", {{"{mapping.id_field}": "hashed"}})' in reason


@pytest.mark.parametrize(
    ("found", "says"),
    [
        (listed(capped=True, size=4096), ("is capped", 'db.things.aggregate([{$out: "copy"}])')),
        (listed(timeseries={"timeField": "t"}), ("is a time series", 'db.things.aggregate([{$out: "copy"}])')),
        ({"type": "timeseries", "options": {}}, ("is a time series", 'db.things.aggregate([{$out: "copy"}])')),
        ({"type": "view", "options": {"viewOn": "all"}}, ("is a view", "map what it shows: test.all")),
    ],
)
@pytest.mark.parametrize("mapping", [THINGS, BY_OID])
def test_unfit(mapping: Mapping, found: Document, says: tuple[str, str]) -> None:
    reason = unfit(parse(found), mapping)
    assert reason is not None
    assert all(part in reason for part in ("test.things", *says))


def test_a_default_collation_matters_where_text_is_kept_apart_by_the_index_on_id() -> None:
    found = parse(listed(collation=ENGLISH))
    assert found.collation == "en"
    assert unfit(found, THINGS) is None
    assert unfit(found, BY_OID) is None
    assert "takes different ids for one" in str(unfit(found, BY_ID))


@pytest.mark.parametrize(
    ("spec", "does"),
    [
        ({"key": {"id": 1}, "unique": True}, True),
        ({"key": {"id": -1}, "unique": True}, True),
        ({"key": {"id": 1.0}, "unique": True, "name": "by another name"}, True),
        ({"key": {"id": 1}, "unique": True, "sparse": True}, True),
        ({"key": {"id": 1}, "unique": True, "hidden": True}, True),
        ({"key": {"id": 1}, "unique": True, "collation": {"locale": "simple"}}, True),
        ({"key": {"id": 1}, "unique": True, "collation": ENGLISH}, False),
        ({"key": {"id": 1}, "unique": True, "partialFilterExpression": {}}, False),
        ({"key": {"id": 1}}, False),
        ({"key": {"id": "hashed"}}, False),
        ({"key": {"id": "hashed"}, "unique": True}, False),
        ({"key": {"id": 1, "tenant": 1}, "unique": True}, False),
        ({"key": {"other": 1}, "unique": True}, False),
    ],
)
def test_what_keeps_ids_apart(spec: Document, does: bool) -> None:
    assert Index(spec).keeps_ids_apart(THINGS) is does


def test_numbers_are_kept_apart_by_any_collation() -> None:
    index = Index({"key": {"id": 1}, "unique": True, "collation": ENGLISH})
    assert index.keeps_ids_apart(Mapping("things", "test", "things", "id", id_type_name="int"))


def test_the_wanted_index_overrules_a_default_collation() -> None:
    plain = {"key": {"id": 1}, "name": "id_1", "unique": True}
    assert wanted_index(THINGS, None).spec == wanted_index(THINGS, ()).spec == plain
    by_default = Index({"key": {"_id": 1}, "name": "_id_", "collation": ENGLISH})
    assert wanted_index(THINGS, (by_default,)).spec == plain | {"collation": {"locale": "simple"}}


@pytest.mark.parametrize(
    ("spec", "says"),
    [
        ({"key": {"id": 1}, "name": "id_1"}, ("isn't unique", 'db.things.dropIndex("id_1")')),
        ({"key": {"id": 1}, "name": "mine"}, ("isn't unique", 'db.things.dropIndex("mine")')),
        (
            {"key": {"id": 1}, "name": "id_1", "unique": True, "partialFilterExpression": {"n": 1}},
            ("is partial", 'db.things.dropIndex("id_1")'),
        ),
        (
            {"key": {"id": 1}, "name": "id_1", "unique": True, "collation": ENGLISH},
            ("collation 'en'", 'db.things.dropIndex("id_1")'),
        ),
        ({"key": {"n": 1}, "name": "id_1"}, ('is on {"n": 1}', 'db.things.dropIndex("id_1")')),
        ({"key": {"n": 1}, "name": "n_1"}, ("db.things.getIndexes()",)),
    ],
)
def test_what_is_in_the_way_is_named(spec: Document, says: tuple[str, ...]) -> None:
    reason = in_the_way(parse(listed(), indexes=[{"key": {"_id": 1}, "name": "_id_"}, spec]), THINGS)
    assert all(part in reason for part in ("test.things", *says))


def test_an_index_that_the_sharding_needs_is_made_unique_rather_than_dropped() -> None:
    found = parse(listed(), indexes=[{"key": {"id": 1}, "name": "id_1"}], sharding=sharded(id=1))
    assert in_the_way(found, THINGS).endswith(
        'db.runCommand({collMod: "things", index: {"name": "id_1", "prepareUnique": true}}); '
        'db.runCommand({collMod: "things", index: {"name": "id_1", "unique": true}})'
    )


def test_names_that_mongosh_takes_for_something_else() -> None:
    mapping = Mapping("things", "test", "my-things", "id")
    reason = in_the_way(parse(listed(), indexes=[{"key": {"id": 1}, "name": 'my "id"'}]), mapping)
    assert r'db.getCollection("my-things").dropIndex("my \"id\"")' in reason


def test_what_may_refuse_documents() -> None:
    found = parse(
        listed(
            validator={
                "$jsonSchema": {"required": ["a"], "properties": {"b": {}}},
                "$and": [{"c.d": 1}, {"$or": [{"e": 1}]}],
                "$expr": {"$gt": ["$x", "$y"]},
            },
            validationLevel="moderate",
        ),
        indexes=[
            {"key": {"_id": 1}, "name": "_id_"},
            {"key": {"id": 1}, "name": "id_1", "unique": True},
            {"key": {"n": 1}, "name": "n_1"},
            {"key": {"mail": 1, "tenant": 1}, "name": "mails", "unique": True},
        ],
    )
    assert found.validated_fields() == ["a", "b", "c", "e"]
    assert found.validation == ("moderate", "error")
    assert [index.name for index in found.users_unique_indexes(THINGS)] == ["mails"]


@pytest.mark.parametrize(
    ("operations", "progress"),
    [
        ([], None),
        ([{"command": {"createIndexes": "things", "$db": "test"}}], None),
        ([{"command": {"createIndexes": "things", "$db": "test"}, "progress": {"done": 1, "total": 4}}], 0.25),
        ([{"command": {"createIndexes": "things", "$db": "other"}, "progress": {"done": 1, "total": 4}}], None),
        ([{"command": {"find": "things", "$db": "test"}, "progress": {"done": 1, "total": 4}}], None),
        (
            [
                {"command": {"createIndexes": "things"}, "progress": {"done": done, "total": 4}, "shard": done}
                for done in (3, 2)
            ],
            0.5,
        ),
    ],
)
def test_how_far_a_build_is(operations: list[Document], progress: float | None) -> None:
    assert progress_of(operations, "test", "things") == progress


def parse(
    listed: Document | None = None, indexes: list[Document] | None = None, sharding: Document | None = None
) -> Collection:
    return Collection.parse(listed, indexes, sharding)
