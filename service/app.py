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

from gears.mongo import Store, close_client, open_client
from gears.redis import connect
from gears.settings import Settings
from gears.watermark import Watermarks
from service.admission import Admission
from service.authorize import Authorize
from service.confirm import Confirmations
from service.cors import cors
from service.docs import docs_routes
from service.documents import Documents
from service.engines import Engines
from service.guard import Guard, on_http_exception
from service.idempotency import IdempotencyKeys
from service.inspect import Inspector
from service.methods import Methods
from service.metrics import Measured, Metrics
from service.models import load_models
from service.openapi import openapi
from service.probes import Probes
from service.resource import Resource
from service.sync import Sync
from service.tokens import load_tokens
from service.watch import watch

log = structlog.get_logger()


def create_app(settings: Settings) -> Starlette:
    """The API for these settings.

    It starts whether Redis and MongoDB are there or not, and is ready as soon as they are. Its `state.stop()` makes
    writes that wait come to an end soon.

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
    resources = [
        Resource(
            Documents(mapping, redis, stores[mapping.prefix], engines, backlog_limit=settings.backlog_limit),
            models[mapping.prefix],
            confirmations,
            admission,
            keys,
        )
        for mapping in settings.mappings
    ]

    @asynccontextmanager
    async def lifespan(_: Starlette) -> AsyncIterator[None]:
        try:
            async with anyio.create_task_group() as tasks:
                tasks.start_soon(keys.run)
                tasks.start_soon(_keep_up, "following the watermark", watermarks.run)
                tasks.start_soon(_keep_up, "watching the servers", partial(watch, redis, mongo))
                yield
                tasks.cancel_scope.cancel()
        finally:
            close_client(mongo)
            with anyio.move_on_after(1, shield=True):
                await redis.aclose()

    app = Starlette(
        routes=[
            *(route for resource in resources for route in resource.routes()),  # first: most requests
            Route("/healthz", Methods({"GET": probes.health})),
            Route("/readyz", Methods({"GET": probes.ready})),
            Route("/metrics", Methods({"GET": probes.metrics})),
            Route("/sync", Methods({"GET": sync.overview})),
            Route("/sync/audits", Methods({"GET": sync.audits}, query=("mapping", "limit"))),
            Route("/sync/{token}", Methods({"GET": sync.token}, query=("mapping",))),
            *docs_routes(openapi(settings.mappings, models, secured=tokens is not None)),
        ],
        middleware=[
            Middleware(Measured, metrics),
            *allowed,
            Middleware(Guard),
            *([] if tokens is None else [Middleware(Authorize, tokens)]),
        ],
        exception_handlers={HTTPException: on_http_exception},
        lifespan=lifespan,
    )
    app.router.redirect_slashes = False
    app.state.stop = confirmations.stop
    return app


async def _keep_up(what: str, work: Callable[[], Awaitable[None]]) -> None:
    """Do this, come what may: without the watermarks, no write would ever be confirmed."""
    while True:
        try:
            await work()
        except Exception:
            log.exception(f"{what} failed; starting again")
            await anyio.sleep(1)
