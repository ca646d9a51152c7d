"""The HTTP resource of one mapping: a collection and its items, and where each is found."""

from starlette.routing import Route

from service.documents.resource.bulk import NDJSON
from service.documents.resource.collection import CollectionResource
from service.documents.resource.item import ItemResource
from service.documents.resource.shared import Shared
from service.http.bodies import JSON, MERGE_PATCH
from service.http.methods import Methods


def routes_of(shared: Shared) -> list[Route]:
    """The routes of a mapping's collection and items."""
    prefix = shared.mapping.prefix
    of_all, of_one = CollectionResource(shared), ItemResource(shared)
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
