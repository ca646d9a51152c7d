"""Whether this process can do its work now, and if not, why."""

from time import monotonic

import anyio
import structlog

from service.watch.gather_state import Inspection, Inspector, MappingState

OK = "ok"
OK_BUT = "ok, but "
"""How the outcome of a check begins that shows something, though it doesn't keep the process from its work."""

_FRESH_SECONDS = 0.5

log = structlog.get_logger()

Checks = dict[str, str]
"""What was checked, each `OK` or the reason why not."""


def checks_of(inspection: Inspection, *, backlog_limit: int) -> Checks:
    """What readiness depends on, by the name of the check."""
    checks = {name: inspection.errors.get(name, OK) for name in ("redis", "mongo")}
    for state in inspection.mappings:
        prefix = state.mapping.prefix
        checks[f"capture:{prefix}"] = _capture(state)
        checks[f"worker:{prefix}"] = _worker(state)
        checks[f"backlog:{prefix}"] = _backlog(state, backlog_limit)
    return checks


def is_ready(checks: Checks) -> bool:
    """Whether all are well."""
    return all(outcome == OK or outcome.startswith(OK_BUT) for outcome in checks.values())


class Readiness:
    """The latest checks, made again when they are older than half a second.

    Args:
        inspector: asks Redis and MongoDB.
        backlog_limit: uncommitted entries from which on nothing more is written.
    """

    def __init__(self, inspector: Inspector, *, backlog_limit: int) -> None:
        self._inspector = inspector
        self._backlog_limit = backlog_limit
        self._lock = anyio.Lock()
        self._checks: Checks = {}
        self._checked_at = float("-inf")
        self._was_ready: bool | None = None

    async def checks(self) -> Checks:
        """The present checks."""
        async with self._lock:
            if monotonic() - self._checked_at > _FRESH_SECONDS:
                inspection = await self._inspector.inspect(thorough=False)
                self._checks = checks_of(inspection, backlog_limit=self._backlog_limit)
                self._checked_at = monotonic()
                self._log_change()
            return self._checks

    def _log_change(self) -> None:
        ready = is_ready(self._checks)
        if ready != self._was_ready:
            self._was_ready = ready
            if ready:
                log.info("ready")
            else:
                log.warning("not ready", **{name: why for name, why in self._checks.items() if why != OK})


def _capture(state: MappingState) -> str:
    if state.capture is None:
        return state.errors.get("capture", "unknown")
    return state.capture.problem or OK


def _worker(state: MappingState) -> str:
    if state.backlog is None:
        return state.errors.get("backlog", "unknown")
    worker = state.backlog.worker
    if worker is None:
        return "no worker; run: writethrough worker"
    if worker.state != "committing":
        return f"{worker.state}: {worker.reason}"
    return f"{OK_BUT}{worker.aside} keys are set aside: {worker.aside_reason}" if worker.aside else OK


def _backlog(state: MappingState, limit: int) -> str:
    if state.backlog is None:
        return state.errors.get("backlog", "unknown")
    if state.backlog.entries >= limit:
        return f"{state.backlog.entries} uncommitted entries, as many as allowed"
    return OK
