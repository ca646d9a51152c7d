"""What the handlers of one mapping share."""

from dataclasses import dataclass

from gears.contract.mapping import Mapping
from service.documents.idempotency import IdempotencyKeys
from service.documents.read_through import ReadThrough
from service.documents.wait_confirmed import Confirmations
from service.documents.write import Writes
from service.http.writes_in_flight import Admission
from service.models import Model


@dataclass(frozen=True, slots=True)
class Shared:
    """Documents, and what it takes to answer for them.

    Args:
        reads: the mapping's documents.
        writes: what is written to them.
        model: what they must look like; None for any JSON object.
        confirmations: waits for MongoDB.
        admission: counts the writes in flight.
        keys: those of requests that may be sent again.
    """

    reads: ReadThrough
    writes: Writes
    model: Model | None
    confirmations: Confirmations
    admission: Admission
    keys: IdempotencyKeys

    @property
    def mapping(self) -> Mapping:
        """The mapping."""
        return self.reads.mapping
