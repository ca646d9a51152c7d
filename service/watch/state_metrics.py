"""How the mappings are doing, as metrics for Prometheus."""

from collections.abc import Callable

from prometheus_client.core import CounterMetricFamily, GaugeMetricFamily, Metric

from service.watch.gather_state import Inspection, MappingState

WORKER_STATES = ("starting", "preparing", "committing", "retrying", "restoring", "blocked")

AUDIT_KINDS = ("missing", "stale", "ahead", "cold", "foreign", "legacy", "unsettled")


def metrics_of(inspection: Inspection, *, ready: bool, now: float) -> list[Metric]:
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
