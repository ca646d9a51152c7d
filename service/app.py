"""The application: everything put together, for one process."""

from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import asynccontextmanager
from functools import partial

import anyio
import structlog
from starlette.applications import Starlette
from starlette.exceptions import HTTPException
from starlette.middleware import Middleware
from starlette.routing import Route

from gears.engines.engine_of_mapping import Engines
from gears.in_mongo.client import close_client, open_client
from gears.in_mongo.store import Store
from gears.in_redis.client import connect
from gears.process.settings import Settings
from gears.progress.watermark import Watermarks
from service.auth.authorize import Authorize
from service.auth.bearer_tokens import load_tokens
from service.documents.idempotency import IdempotencyKeys
from service.documents.read_through import ReadThrough
from service.documents.resource.resource import routes_of
from service.documents.resource.shared import Shared
from service.documents.wait_confirmed import Confirmations
from service.documents.write import Writes
from service.http.catch_all import Guard, on_http_exception
from service.http.cors import cors
from service.http.methods import Methods
from service.http.writes_in_flight import Admission
from service.models import load_models
from service.openapi.openapi import openapi
from service.openapi.pages import docs_routes
from service.page.page import Page
from service.watch.gather_state import Inspector
from service.watch.key_status import KeyStatus
from service.watch.latest_writes import Latest
from service.watch.metrics import Measured, Metrics
from service.watch.outages import watch
from service.watch.probes import Probes
from service.watch.sync import Sync

log = structlog.get_logger()


def create_app(settings: Settings) -> Starlette:
    """The API for these settings.

    It starts whether Redis and MongoDB are there or not, and is ready as soon as they are. Its `state.stop()` makes
    writes that wait, and who looks at the page, come to an end soon.

    Raises:
        ConfigError: a setting can't be used.
    """
    models = load_models(settings.mappings)
    tokens = load_tokens(settings)
    allowed = cors(settings.cors_origins)
    redis = connect(settings.redis_url, timeout=settings.redis_timeout)
    mongo = open_client(settings.mongo_uri, timeout=settings.mongo_timeout)
    stores = {mapping.prefix: Store(mongo, mapping) for mapping in settings.mappings}
    engines = Engines(redis, settings.mappings, settings.engine)
    watermarks = Watermarks(redis, settings.mappings)
    admission = Admission()
    keys = IdempotencyKeys(redis)
    metrics = Metrics(lambda: admission.writes, backlog_limit=settings.backlog_limit)
    confirmations = Confirmations(watermarks, metrics, settings.commit_timeout)
    inspector = Inspector(redis, mongo, stores, engines)
    probes = Probes(inspector, metrics, backlog_limit=settings.backlog_limit)
    sync = Sync(redis, stores, inspector)
    key_status = KeyStatus(redis, stores)
    latest = Latest()
    page = Page(inspector, stores.values(), latest, models, backlog_limit=settings.backlog_limit)
    resources: list[Route] = []
    for mapping in settings.mappings:
        store = stores[mapping.prefix]
        reads = ReadThrough(mapping, redis, store, engines, partial(getattr, watermarks[mapping.prefix], "is_checked"))
        writes = Writes(reads, redis, store, engines, backlog_limit=settings.backlog_limit)
        resources += routes_of(Shared(reads, writes, models[mapping.prefix], confirmations, admission, keys))

    @asynccontextmanager
    async def lifespan(_: Starlette) -> AsyncIterator[None]:
        try:
            async with anyio.create_task_group() as tasks:
                tasks.start_soon(keys.run)
                tasks.start_soon(_keep_up, "following the watermark", watermarks.run)
                tasks.start_soon(_keep_up, "watching the servers", partial(watch, redis, mongo))
                tasks.start_soon(_keep_up, "sampling for the page", page.run)
                yield
                tasks.cancel_scope.cancel()
        finally:
            close_client(mongo)
            with anyio.move_on_after(1, shield=True):
                await redis.aclose()

    app = Starlette(
        routes=[
            *resources,  # first: most requests
            *page.routes(),
            Route("/healthz", Methods({"GET": probes.health})),
            Route("/readyz", Methods({"GET": probes.ready})),
            Route("/metrics", Methods({"GET": probes.metrics})),
            Route("/sync", Methods({"GET": sync.overview})),
            Route("/sync/audits", Methods({"GET": sync.audits}, query=("mapping", "limit"))),
            Route("/sync/keys/{mapping}/{id:any}", Methods({"GET": key_status.read})),
            Route("/sync/{token}", Methods({"GET": sync.token}, query=("mapping",))),
            *docs_routes(openapi(settings.mappings, models, secured=tokens is not None)),
        ],
        middleware=[
            Middleware(Measured, metrics, latest),
            *allowed,
            Middleware(Guard),
            *([] if tokens is None else [Middleware(Authorize, tokens)]),
        ],
        exception_handlers={HTTPException: on_http_exception},
        lifespan=lifespan,
    )
    app.router.redirect_slashes = False

    def stop() -> None:
        confirmations.stop()
        page.stop()

    app.state.stop = stop
    return app


async def _keep_up(what: str, work: Callable[[], Awaitable[None]]) -> None:
    """Do this, come what may: without the watermarks, no write would ever be confirmed."""
    while True:
        try:
            await work()
        except Exception:
            log.exception(f"{what} failed; starting again")
            await anyio.sleep(1)
