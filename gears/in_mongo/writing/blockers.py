"""Who is in the way of a document: those that hold a value which it needs, and a unique index gives to one alone."""

from collections.abc import Iterable, Iterator, Sequence
from collections.abc import Mapping as Dict

import bson
from bson.codec_options import CodecOptions, DatetimeConversion

from gears.contract.changes import Upsert
from gears.contract.mapping import Mapping
from gears.contract.mongo_form import read_stored
from gears.in_mongo.client import Document
from gears.in_mongo.documents import AT_ONCE, Documents
from gears.in_mongo.errors.describe import describe_item
from gears.in_mongo.unique_indexes.in_the_way import UniqueIndex, meet
from gears.in_mongo.unique_indexes.write_order import Blocker, Changes

_QUERY_BYTES = 1024 * 1024
"""How large documents that are looked for by one query may be together, the last one not counted."""

_READ: CodecOptions[Document] = CodecOptions(
    datetime_conversion=DatetimeConversion.DATETIME_MS, unicode_decode_error_handler="replace"
)


class Blockers:
    """Finds them in one mapping's collection.

    Args:
        documents: the mapping's.
    """

    def __init__(self, documents: Documents) -> None:
        self._documents = documents.collection
        self._mapping = documents.mapping
        self._filters = documents.filters

    async def in_the_way(self, batch: Changes, stuck: Iterable[str]) -> dict[str, list[Blocker]]:
        """What is in the way of these; and if something beside the batch is, what is in the way of all that is."""
        blockers = await self.of([change for i in stuck if isinstance(change := batch.change(i), Upsert)])
        beside = {i: change for i, change in batch.beside.items() if isinstance(change, Upsert) and i not in blockers}
        found = {blocker.stored.id for each in blockers.values() for blocker in each if blocker.stored is not None}
        return blockers | (await self.of(list(beside.values())) if found & beside.keys() else {})

    async def of(self, upserts: Sequence[Upsert]) -> dict[str, list[Blocker]]:
        """The documents that hold what each of these needs."""
        blockers: dict[str, list[Blocker]] = {upsert.document_id: [] for upsert in upserts}
        if upserts:
            indexes = [index async for found in self._documents.list_indexes() if (index := UniqueIndex.parse(found))]
            for some in _some(upserts):
                documents = {upsert.document_id: _decode(upsert.document) for upsert in some}
                for index in indexes:
                    for document_id, blocker in await self._holders(index, documents):
                        blockers[document_id].append(blocker)
        return blockers

    async def _holders(self, index: UniqueIndex, documents: Dict[str, Document]) -> list[tuple[str, Blocker]]:
        """Ids of these documents, each with one that holds what it needs in this index."""
        needed = {
            i: keys
            for i, document in documents.items()
            if "_id" in document or index.fields != ("_id",)
            if (keys := index.needs(document)) is not None
        }
        if not needed:
            return []
        by_server = index.collation is not None  # nobody else knows what is equal
        collation = index.collation or self._filters.collation
        found = await self._documents.find(index.holders(needed.values()), collation=collation).to_list(None)
        if found and by_server and len(needed) > 1:
            return [each for i in needed for each in await self._holders(index, {i: documents[i]})]
        holders: list[tuple[str, Blocker]] = []
        for raw in found:
            stored, held = read_stored(self._mapping, bytes(raw.raw)), index.holds(_decode(bytes(raw.raw)))
            blocker = Blocker(index.name, stored, repr(raw["_id"]))
            holders += [
                (i, blocker)
                for i, keys in needed.items()
                if (stored is None or stored.id != i) and (by_server or meet(keys, held))
            ]
        return holders


def taken(mapping: Mapping, blocker: Blocker, failure: Document) -> str:
    """Why a document is refused: who holds what it needs, and where.

    Args:
        mapping: the mapping.
        blocker: who.
        failure: what MongoDB said of it; empty where it wasn't asked.
    """
    said = describe_item(failure) if failure else "another document has the same value"
    if blocker.stored is not None:
        return f"{said}; held by {mapping.key(blocker.stored.id)}, in the unique index {blocker.index}"
    return (
        f"{said}; held by the document with _id {blocker.object_id} in {mapping.namespace}, in the unique "
        f"index {blocker.index}, whose {mapping.id_field!r} is no id: change that, and write this again"
    )


def _decode(document: bytes) -> Document:
    return bson.decode(document, _READ)


def _some(upserts: Iterable[Upsert]) -> Iterator[list[Upsert]]:
    """As many at a time as one query is to look for."""
    some: list[Upsert] = []
    for upsert in upserts:
        some.append(upsert)
        if len(some) == AT_ONCE or sum(len(each.document) for each in some) > _QUERY_BYTES:
            yield some
            some = []
    if some:
        yield some
