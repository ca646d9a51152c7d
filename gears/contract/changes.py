"""What MongoDB is to be brought to, one change a document."""

from dataclasses import dataclass


@dataclass(frozen=True, slots=True)
class Upsert:
    """Bring a document to this state, unless MongoDB holds a newer one.

    Args:
        document_id: its id, as text.
        version: the state's version.
        document: what MongoDB is to hold, as BSON.
        has_its_id: whether Redis holds the id in the document, as it should.
    """

    document_id: str
    version: int
    document: bytes
    has_its_id: bool = True


@dataclass(frozen=True, slots=True)
class Remove:
    """Delete a document and remember that, unless MongoDB holds a newer state."""

    document_id: str
    version: int


Change = Upsert | Remove
