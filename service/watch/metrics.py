"""Metrics for Prometheus: what this process did, and how the mappings are doing when it is asked."""

from collections.abc import Callable, Iterable
from functools import cache
from time import perf_counter, time

from prometheus_client import CollectorRegistry, Counter, Gauge, Histogram, generate_latest
from prometheus_client.core import CounterMetricFamily, GaugeMetricFamily, Metric
from prometheus_client.registry import Collector
from starlette.types import ASGIApp, Message, Receive, Scope, Send

from service.http.problems import ANSWERED, TYPES
from service.watch.gather_state import Inspection, MappingState

WORKER_STATES = ("starting", "preparing", "committing", "retrying", "restoring", "blocked")

AUDIT_KINDS = ("missing", "stale", "ahead", "cold", "foreign", "legacy", "unsettled")

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
        registry.register(_Families(families(inspection, ready=ready, now=time())))
        return generate_latest(self._registry) + generate_latest(registry)


def families(inspection: Inspection, *, ready: bool, now: float) -> list[Metric]:
    """What an inspection says, as metrics; what it doesn't know is left out.

    Args:
        inspection: how everything is doing.
        ready: whether this process is ready.
        now: seconds of the Unix epoch.
    """
    up = GaugeMetricFamily("writethrough_up", "Whether the server answers.", labels=("server",))
    for server in ("redis", "mongo"):
        up.add_metric((server,), server not in inspection.errors)
    trips = GaugeMetricFamily(
        "writethrough_round_trip_seconds", "From a question to the server's answer.", labels=("server",)
    )
    for server, seconds in inspection.round_trips.items():
        trips.add_metric((server,), seconds)
    result: list[Metric] = [GaugeMetricFamily("writethrough_ready", "Whether this process is ready.", ready), up, trips]
    for kind, suffix, text, value in _BY_MAPPING:
        family = kind(f"writethrough_{suffix}", text, labels=("mapping",))
        for state in inspection.mappings:
            number = value(state, now)
            if number is not None:
                family.add_metric((state.mapping.prefix,), number)
        result.append(family)
    states = GaugeMetricFamily(
        "writethrough_worker_state", "1 for the state that the worker is in.", labels=("mapping", "state")
    )
    for mapping in inspection.mappings:
        if mapping.backlog:
            worker = mapping.backlog.worker
            for name in WORKER_STATES:
                states.add_metric((mapping.mapping.prefix, name), worker is not None and worker.state == name)
    drift = GaugeMetricFamily("writethrough_drift", "Keys by what the last audit found.", labels=("mapping", "kind"))
    for mapping in inspection.mappings:
        for found in AUDIT_KINDS if mapping.last_audit else ():
            drift.add_metric((mapping.mapping.prefix, found), getattr(mapping.last_audit, found))
    return [*result, states, drift]


class Measured:
    """ASGI middleware that counts and times requests by the template of their route."""

    def __init__(self, app: ASGIApp, metrics: Metrics) -> None:
        self._app = app
        self._metrics = metrics

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        if scope["type"] != "http":
            await self._app(scope, receive, send)
            return
        started = perf_counter()
        status = _CLIENT_GONE

        async def observed(message: Message) -> None:
            nonlocal status
            if message["type"] == "http.response.start":
                status = message["status"]
            await send(message)

        try:
            await self._app(scope, receive, observed)
        finally:
            route = getattr(scope.get("route"), "path", "unmatched")
            problem = scope.get(ANSWERED) if status != _CLIENT_GONE else None
            self._metrics.request(scope["method"], route, status, perf_counter() - started, problem)


class _Families(Collector):
    def __init__(self, metrics: Iterable[Metric]) -> None:
        self._metrics = metrics

    def collect(self) -> Iterable[Metric]:
        return self._metrics


Value = Callable[[MappingState, float], float | None]


def _of_backlog(name: str) -> Value:
    return lambda state, _: None if state.backlog is None else float(getattr(state.backlog, name))


def _of_worker(name: str) -> Value:
    return lambda state, _: getattr(state.backlog.worker, name) if state.backlog and state.backlog.worker else None


def _of_capture(name: str) -> Value:
    return lambda state, _: None if state.capture is None else float(getattr(state.capture, name))


def _of_audit(name: str) -> Value:
    return lambda state, _: None if state.last_audit is None else float(getattr(state.last_audit, name))


def _of_reconciler(name: str) -> Value:
    return lambda state, _: None if state.reconciler is None else float(getattr(state.reconciler, name))


def _reconciler_up(state: MappingState, _: float) -> float | None:
    return None if "reconciler" in state.errors else float(state.reconciler is not None)


def _listening(state: MappingState, _: float) -> float | None:
    return None if state.reconciler is None else float(state.reconciler.state == "listening")


def _oldest_drift(state: MappingState, now: float) -> float | None:
    if state.last_audit is None:
        return None
    since = state.last_audit.drift_since
    return max(0.0, now - since.timestamp()) if since else 0.0


def _rewinds(state: MappingState, _: float) -> float | None:
    return None if state.rewinds is None else float(state.rewinds.count)


def _rewound_at(state: MappingState, _: float) -> float | None:
    return state.rewinds.last.found_at.timestamp() if state.rewinds and state.rewinds.last else None


def _rewound_keys(state: MappingState, _: float) -> float | None:
    return float(state.rewinds.last.restored) if state.rewinds and state.rewinds.last else None


def _audited_at(state: MappingState, _: float) -> float | None:
    return state.last_audit.started_at.timestamp() if state.last_audit else None


def _watermark_age(state: MappingState, now: float) -> float | None:
    last = state.backlog.acked.token.id if state.backlog else None
    return max(0.0, now - last.ms / 1e3) if last and last.ms else None


def _worker_up(state: MappingState, _: float) -> float | None:
    return None if state.backlog is None else float(state.backlog.worker is not None)


_BY_MAPPING: tuple[tuple[type[GaugeMetricFamily] | type[CounterMetricFamily], str, str, Value], ...] = (
    (GaugeMetricFamily, "backlog_entries", "Uncommitted entries.", _of_backlog("entries")),
    (GaugeMetricFamily, "lag_seconds", "Age of the oldest uncommitted entry.", _of_backlog("lag")),
    (GaugeMetricFamily, "watermark_age_seconds", "Age of the last committed entry.", _watermark_age),
    (GaugeMetricFamily, "worker_up", "Whether a worker holds the lease.", _worker_up),
    (CounterMetricFamily, "worker_committed", "Entries that this worker committed.", _of_worker("committed")),
    (CounterMetricFamily, "worker_refused", "Entries that this worker refused.", _of_worker("refused")),
    (GaugeMetricFamily, "worker_aside", "Keys that MongoDB doesn't take now, set aside.", _of_worker("aside")),
    (CounterMetricFamily, "worker_retries", "Commits that this worker had to do again.", _of_worker("retries")),
    (CounterMetricFamily, "worker_batches", "Batches that MongoDB has written for it.", _of_worker("batches")),
    (CounterMetricFamily, "worker_batch_seconds", "How long MongoDB took for them.", _of_worker("batch_seconds")),
    (GaugeMetricFamily, "capture_working", "Whether plain writes are captured.", _of_capture("working")),
    (CounterMetricFamily, "captured", "Events that the recipe captured since it was loaded.", _of_capture("captured")),
    (CounterMetricFamily, "capture_failures", "Events that it failed to capture.", _of_capture("failures")),
    (GaugeMetricFamily, "dead_letters", "Refused states that are kept in MongoDB.", lambda s, _: s.dead_letters),
    (GaugeMetricFamily, "drift_left", "Drift that the last audit left unrepaired.", _of_audit("left")),
    (GaugeMetricFamily, "oldest_drift_seconds", "Since when audits have found drift and left some.", _oldest_drift),
    (GaugeMetricFamily, "last_audit_timestamp_seconds", "When the last audit began.", _audited_at),
    (GaugeMetricFamily, "last_audit_seconds", "How long it took.", _of_audit("seconds")),
    (GaugeMetricFamily, "last_audit_compared", "How many keys it compared.", _of_audit("compared")),
    (GaugeMetricFamily, "last_audit_repaired", "How many keys it repaired.", _of_audit("repaired")),
    (GaugeMetricFamily, "last_audit_deleted", "How many cold documents it deleted.", _of_audit("deleted")),
    (GaugeMetricFamily, "last_audit_rate", "Keys it compared a second.", _of_audit("documents_per_second")),
    (GaugeMetricFamily, "reconciler_up", "Whether a reconciler is at work.", _reconciler_up),
    (GaugeMetricFamily, "reconciler_listening", "Whether it listens to what changes.", _listening),
    (GaugeMetricFamily, "reconciler_noted", "Changed keys that wait to be compared.", _of_reconciler("noted")),
    (CounterMetricFamily, "notifications", "Keyspace events that it heard.", _of_reconciler("notifications")),
    (CounterMetricFamily, "rechecked", "Keys it compared since they changed.", _of_reconciler("rechecked")),
    (CounterMetricFamily, "recheck_repaired", "Keys it repaired of these.", _of_reconciler("repaired")),
    (CounterMetricFamily, "recheck_deletes", "Deletes it found that were not captured.", _of_reconciler("deletes")),
    (GaugeMetricFamily, "rewinds", "How often Redis had forgotten what was committed.", _rewinds),
    (GaugeMetricFamily, "last_rewind_timestamp_seconds", "When that was found last.", _rewound_at),
    (GaugeMetricFamily, "last_rewind_keys", "How many keys were given back then.", _rewound_keys),
)
