"""Metrics for Prometheus: what this process did, and how the mappings are doing when it is asked."""

from collections.abc import Callable, Iterable
from functools import cache
from time import perf_counter, time

from prometheus_client import CollectorRegistry, Counter, Gauge, Histogram, generate_latest
from prometheus_client.core import Metric
from prometheus_client.registry import Collector
from starlette.types import ASGIApp, Message, Receive, Scope, Send

from service.http.problems import ANSWERED, TYPES
from service.watch.gather_state import Inspection
from service.watch.latest_writes import WRITES, Headers, Latest
from service.watch.state_metrics import metrics_of

_CLIENT_GONE = 499
"""What nginx calls a request whose client went away before the answer."""

_SECONDS = (0.001, 0.0025, 0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1, 2.5, 5, 10, 30)


class Metrics:
    """What this process counts; a registry of its own, so that a process can hold several apps.

    Args:
        writes_in_flight: tells how many there are.
        backlog_limit: uncommitted entries from which on nothing more is written.
    """

    def __init__(self, writes_in_flight: Callable[[], int], *, backlog_limit: int) -> None:
        self._registry = CollectorRegistry()
        self._requests = Counter(
            "writethrough_requests", "Requests answered.", ("method", "route", "status"), registry=self._registry
        )
        self._problems = Counter(
            "writethrough_problems", "Requests answered with a problem.", ("type", "status"), registry=self._registry
        )
        for kind in TYPES:  # from 0 on, so that the first one is seen as an increase
            self._problems.labels(kind.name, kind.status)
        self._durations = Histogram(
            "writethrough_request_seconds",
            "From a request's head to the end of its answer.",
            ("method", "route"),
            buckets=_SECONDS,
            registry=self._registry,
        )
        self._commit_waits = Histogram(
            "writethrough_commit_wait_seconds",
            "How long writes waited for MongoDB's confirmation.",
            ("mapping",),
            buckets=_SECONDS,
            registry=self._registry,
        )
        self._answered = cache(self._requests.labels)  # looking children up takes longer than counting
        self._took = cache(self._durations.labels)
        self._waited = cache(self._commit_waits.labels)
        in_flight = Gauge(
            "writethrough_writes_in_flight", "Writes under way, waiting ones included.", registry=self._registry
        )
        in_flight.set_function(writes_in_flight)
        limit = Gauge(
            "writethrough_backlog_limit",
            "Uncommitted entries from which on the API takes no writes.",
            registry=self._registry,
        )
        limit.set(backlog_limit)

    def request(self, method: str, route: str, status: int, seconds: float, problem: str | None = None) -> None:
        """Count an answered request, and the type of problem that it was answered with."""
        self._answered(method, route, status).inc()
        self._took(method, route).observe(seconds)
        if problem is not None:
            self._problems.labels(problem, status).inc()

    def commit_wait(self, mapping: str, seconds: float) -> None:
        """Count a write that waited, confirmed in the end or not."""
        self._waited(mapping).observe(seconds)

    def render(self, inspection: Inspection, *, ready: bool) -> bytes:
        """All metrics in Prometheus's text format."""
        registry = CollectorRegistry()
        registry.register(_Families(metrics_of(inspection, ready=ready, now=time())))
        return generate_latest(self._registry) + generate_latest(registry)


class Measured:
    """ASGI middleware that counts and times requests by the template of their route, and notes writes for the page."""

    def __init__(self, app: ASGIApp, metrics: Metrics, latest: Latest) -> None:
        self._app = app
        self._metrics = metrics
        self._latest = latest

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        if scope["type"] != "http":
            await self._app(scope, receive, send)
            return
        started = perf_counter()
        status = _CLIENT_GONE
        headers: Headers = ()

        async def observed(message: Message) -> None:
            nonlocal status, headers
            if message["type"] == "http.response.start":
                status, headers = message["status"], message["headers"]
            await send(message)

        try:
            await self._app(scope, receive, observed)
        finally:
            route = getattr(scope.get("route"), "path", "unmatched")
            problem = scope.get(ANSWERED) if status != _CLIENT_GONE else None
            method, seconds = scope["method"], perf_counter() - started
            self._metrics.request(method, route, status, seconds, problem)
            if self._latest.watched and method in WRITES:
                self._latest.note(method, scope["path"], status, seconds, headers)


class _Families(Collector):
    def __init__(self, metrics: Iterable[Metric]) -> None:
        self._metrics = metrics

    def collect(self) -> Iterable[Metric]:
        return self._metrics
