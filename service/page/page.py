"""The live page, put together."""

from collections.abc import Iterable, Mapping
from typing import Any

from starlette.requests import Request
from starlette.routing import Route
from starlette.types import ASGIApp

from gears.contract.mapping import Mapping as KeyMapping
from gears.in_mongo.store import Store
from service.http.methods import Methods
from service.http.page_paths import EVENTS, FREEZE
from service.models import Model
from service.openapi.examples import example_of
from service.page.files import file_routes
from service.page.freeze_button import Freezer
from service.page.freeze_signal import launcher
from service.page.sampler import Sampler
from service.page.stream import Stream
from service.watch.gather_state import Inspector
from service.watch.latest_writes import Latest

_STR_ID = "from-the-page"


class Page:
    """The page's routes, and the task behind them.

    Args:
        inspector: asks Redis and MongoDB.
        stores: the dead letters and audits of each mapping.
        latest: the latest writes of this process.
        models: what documents must look like, by prefix.
        backlog_limit: uncommitted entries from which on nothing more is written.
    """

    def __init__(
        self,
        inspector: Inspector,
        stores: Iterable[Store],
        latest: Latest,
        models: Mapping[str, Model | None],
        *,
        backlog_limit: int,
    ) -> None:
        by_prefix = {store.mapping.prefix: store for store in stores}
        self._launcher = launcher()
        self._sampler = Sampler(inspector, by_prefix, latest, backlog_limit=backlog_limit)
        self._hello = {
            "mappings": [_form(store.mapping, models[prefix]) for prefix, store in by_prefix.items()],
            "freeze": FREEZE.lstrip("/") if self._launcher else None,
            "backlog_limit": backlog_limit,
        }
        self.run = self._sampler.run
        self.stop = self._sampler.stop

    def routes(self) -> list[Route]:
        """Where everything is found."""
        routes = [*file_routes(), Route(EVENTS, Methods({"GET": self.events}))]
        if self._launcher is not None:
            routes.append(Route(FREEZE, Methods({"POST": Freezer(self._launcher).freeze})))
        return routes

    async def events(self, request: Request) -> ASGIApp:
        """The stream of samples."""
        return Stream(self._sampler, self._hello)


def _form(mapping: KeyMapping, model: Model | None) -> dict[str, Any]:
    """What the form that writes a document needs to know of a mapping."""
    return {
        "prefix": mapping.prefix,
        "namespace": mapping.namespace,
        "id_field": mapping.id_field,
        "id_example": _STR_ID if mapping.id_type.name == "str" else mapping.id_type.example,
        "example": example_of(mapping, model) or {},
    }
