"""`/healthz`, `/readyz` and `/metrics`, for those who watch this process."""

from prometheus_client import CONTENT_TYPE_LATEST
from pydantic_core import to_json
from starlette.requests import Request
from starlette.responses import Response

from service.auth.authorize import HIDE_REASONS
from service.http.problems import NOT_READY, Problem
from service.watch.gather_state import Inspector
from service.watch.metrics import Metrics
from service.watch.readiness import OK, Readiness, checks_of, is_ready


class Probes:
    """Handlers.

    Args:
        inspector: asks how everything is doing.
        metrics: what this process counted.
        backlog_limit: uncommitted entries from which on nothing more is written.
    """

    def __init__(self, inspector: Inspector, metrics: Metrics, *, backlog_limit: int) -> None:
        self._readiness = Readiness(inspector, backlog_limit=backlog_limit)
        self._inspector = inspector
        self._metrics = metrics
        self._backlog_limit = backlog_limit

    async def health(self, request: Request) -> Response:
        """200 as long as this process answers at all."""
        return Response(b'{"status":"ok"}', media_type="application/json")

    async def ready(self, request: Request) -> Response:
        """200 when all is well, else 503; with the reasons, for whoever may know them."""
        checks = await self._readiness.checks()
        hidden = HIDE_REASONS in request.scope
        if is_ready(checks):
            shown = {"status": "ready"} if hidden else {"status": "ready", "checks": checks}
            return Response(to_json(shown), media_type="application/json")
        if hidden:
            raise Problem(NOT_READY, "a token with the scope admin shows the reasons")
        reasons = "; ".join(f"{name}: {outcome}" for name, outcome in checks.items() if outcome != OK)
        raise Problem(NOT_READY, reasons, checks=checks)

    async def metrics(self, request: Request) -> Response:
        """All metrics in Prometheus's text format."""
        inspection = await self._inspector.inspect(thorough=True)
        ready = is_ready(checks_of(inspection, backlog_limit=self._backlog_limit))
        content = self._metrics.render(inspection, ready=ready)
        return Response(content, headers={"Content-Type": CONTENT_TYPE_LATEST})
