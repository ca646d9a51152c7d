"""The button that freezes MongoDB for a moment; only under the launcher of everything embedded."""

import os
from time import monotonic
from urllib.parse import urlsplit

from pydantic_core import to_json
from starlette.requests import Request
from starlette.responses import Response

from service.http.problems import CROSS_SITE, Problem
from service.page.freeze_signal import FREEZE_SECONDS, FREEZE_SIGNAL


class Freezer:
    """Handler.

    Args:
        launcher: process id of the launcher, which does it.
    """

    def __init__(self, launcher: int) -> None:
        self._launcher = launcher
        self._until = float("-inf")

    async def freeze(self, request: Request) -> Response:
        """Have MongoDB frozen, unless it is already; says for how many seconds more."""
        check_same_origin(request)
        now = monotonic()
        if now >= self._until and os.getppid() == self._launcher:
            os.kill(self._launcher, FREEZE_SIGNAL)
            self._until = now + FREEZE_SECONDS
        return Response(to_json({"seconds": round(self._until - now, 1)}), 202, media_type="application/json")


def check_same_origin(request: Request) -> None:
    """Raise `Problem` if a page of another origin makes this request, as browsers say it."""
    origin = request.headers.get("Origin")
    site = request.headers.get("Sec-Fetch-Site", "same-origin")
    if site != "same-origin" or (origin is not None and urlsplit(origin).netloc != request.headers.get("Host")):
        raise Problem(CROSS_SITE, "only this service's own page may ask for it")
