"""The queries that find what is in the way, beside what the server's unique indexes say: both must agree."""

from collections.abc import AsyncIterator
from random import Random
from typing import Any
from uuid import uuid4

import pymongo
import pytest
import pytest_asyncio
from pymongo.asynchronous.collection import AsyncCollection
from pymongo.errors import DuplicateKeyError

from gears.in_mongo.unique_indexes.in_the_way import UniqueIndex, meet
from tests.support.stack import Stack

Document = dict[str, Any]

VALUES: list[Any] = [1, 1.0, 2, "a", "A", None, True, [], [1], [1, 2], ["a", 2], [[1]], {"b": 1}, {"b": [1, 2]}, {}]
INDEXES: list[tuple[Any, dict[str, Any]]] = [
    ("a", {}),
    ("a", {"sparse": True}),
    ("a.b", {}),
    ([("a", 1), ("c", -1)], {}),
    ([("a", 1), ("c", 1)], {"sparse": True}),
    ("a", {"partialFilterExpression": {"c": {"$exists": True}}}),
    ("a", {"partialFilterExpression": {"c": {"$type": "string"}}}),
    ("a", {"partialFilterExpression": {"c": {"$type": "number"}}}),
    ("a", {"partialFilterExpression": {"c": {"$gt": 1}}}),
    ("a", {"partialFilterExpression": {"c": "a", "a": {"$gte": "A"}}}),
    ([("a", 1), ("c", 1)], {"partialFilterExpression": {"$and": [{"a": {"$exists": True}}, {"c": {"$lte": 2}}]}}),
]


@pytest_asyncio.fixture(loop_scope="session")
async def collection(stack: Stack) -> AsyncIterator[AsyncCollection[Document]]:
    found = stack.mongo_client.test[f"conflicts_{uuid4().hex}"]
    yield found
    await found.drop()


@pytest.mark.parametrize(("keys", "options"), INDEXES, ids=[str(index) for index in INDEXES])
async def test_what_is_refused_has_somebody_in_its_way_and_nothing_else(
    collection: AsyncCollection[Document], keys: Any, options: dict[str, Any]
) -> None:
    await collection.create_index(keys, unique=True, **options)
    [index] = [
        parsed
        async for found in await collection.list_indexes()
        if (parsed := UniqueIndex.parse(found)) is not None and parsed.name != "_id_"
    ]
    random, refused, kept = Random(str(keys)), 0, dict[int, Document]()
    for n in range(150):
        document = {name: random.choice(VALUES) for name in ("a", "c") if random.random() < 0.8} | {"_id": n}
        keys = index.needs(document)
        found = [] if keys is None else await collection.find(index.holders([keys])).to_list()
        blocking = [each for each in found if keys is not None and meet(keys, index.holds(each))]
        try:
            await collection.insert_one(document)
        except DuplicateKeyError:
            refused += 1
            assert blocking, document
        except pymongo.errors.WriteError:
            continue  # two arrays in one index
        else:
            assert not blocking, (document, blocking)
            kept[n] = document
    assert refused
    await all_at_once(collection, index, list(kept.values()))


async def all_at_once(collection: AsyncCollection[Document], index: UniqueIndex, documents: list[Document]) -> None:
    """One query for all finds of each what a query of its own finds: nothing but itself, if it is in the index."""
    needs = {document["_id"]: keys for document in documents if (keys := index.needs(document)) is not None}
    found = await collection.find(index.holders(needs.values())).to_list()
    for n, keys in needs.items():
        assert [each["_id"] for each in found if meet(keys, index.holds(each))] == [n]
