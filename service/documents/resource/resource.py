"""The HTTP resource of one mapping: a collection and its items, and where each is found."""

from starlette.routing import Route

from service.documents.idempotency import IdempotencyKeys
from service.documents.read_through import ReadThrough
from service.documents.resource.bulk import NDJSON
from service.documents.resource.collection import CollectionResource
from service.documents.resource.item import ItemResource
from service.documents.wait_confirmed import Confirmations
from service.documents.write import Writes
from service.http.bodies import JSON, MERGE_PATCH
from service.http.methods import Methods
from service.http.writes_in_flight import Admission
from service.models import Model


def routes_of(
    reads: ReadThrough,
    writes: Writes,
    model: Model | None,
    confirmations: Confirmations,
    admission: Admission,
    keys: IdempotencyKeys,
) -> list[Route]:
    """The routes of a mapping's collection and items.

    Args:
        reads: the mapping's documents.
        writes: what is written to them.
        model: what they must look like; None for any JSON object.
        confirmations: waits for MongoDB.
        admission: counts the writes in flight.
        keys: those of requests that may be sent again.
    """
    prefix = reads.mapping.prefix
    of_all = CollectionResource(reads, writes, model, confirmations, admission, keys)
    of_one = ItemResource(reads, writes, model, confirmations, admission)
    collection = Methods(
        {"GET": of_all.list, "POST": of_all.create}, {"Accept-Post": ", ".join(JSON)}, query=("limit", "after")
    )
    handlers = {"GET": of_one.read, "PUT": of_one.replace, "PATCH": of_one.patch, "DELETE": of_one.delete}
    options = {"Accept-Patch": ", ".join(MERGE_PATCH)}
    item = Methods(handlers, options)
    bulk = Methods({**handlers, "POST": of_all.bulk}, options | {"Accept-Post": NDJSON})
    return [
        Route(f"/{prefix}", collection),
        Route(f"/{prefix}/_bulk", bulk),  # which may be a document's id as well
        Route(f"/{prefix}/{{id:any}}", item),
        Route(f"/{prefix}/", collection),  # Starlette takes a line break after it for none
    ]
