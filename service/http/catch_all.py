"""The outermost layer: whatever happens inside, the client gets an answer, and a problem is a problem."""

import structlog
from anyio import get_cancelled_exc_class
from starlette.exceptions import HTTPException
from starlette.requests import ClientDisconnect, Request
from starlette.responses import Response
from starlette.types import ASGIApp, Message, Receive, Scope, Send

from service.http.problems import ANSWERED, INTERNAL, SHUTTING_DOWN, Problem, problem_of, problem_of_status

log = structlog.get_logger()


_READING = frozenset({"GET", "HEAD"})


class Guard:
    """ASGI middleware that answers for what is raised inside."""

    def __init__(self, app: ASGIApp) -> None:
        self._app = app

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        if scope["type"] != "http":
            await self._app(scope, receive, send)
            return
        started = False

        async def observed(message: Message) -> None:
            nonlocal started
            started = True
            await send(message)

        try:
            await self._app(scope, receive, observed)
        except ClientDisconnect:
            return
        except get_cancelled_exc_class():
            # The server cancels what is still under way when its time to end is up, and would log it as a crash.
            response = _answer(Problem(SHUTTING_DOWN, "the process ended before the request was done"), scope)
        except Exception as error:  # noqa: BLE001 this is the place for all of them
            # No problem is kept: with its traceback and this frame it would be garbage that only a collection finds.
            response = _answer(problem_of(error) or _crash(error, scope), scope)
        else:
            return
        if not started:
            await response(scope, receive, send)


async def on_http_exception(request: Request, error: Exception) -> Response:
    """The answer to what Starlette raises: unknown routes and methods."""
    assert isinstance(error, HTTPException)
    detail = {
        404: f"there is nothing at {request.url.path}",
        405: f"{request.url.path} doesn't have the method {request.method}",
    }.get(error.status_code, error.detail)
    return _answer(problem_of_status(error.status_code, detail, error.headers), request.scope)


def _answer(problem: Problem, scope: Scope) -> Response:
    scope[ANSWERED] = problem.kind.name
    return problem.response(reading=scope["method"] in _READING)


def _crash(error: Exception, scope: Scope) -> Problem:
    log.error("request crashed", method=scope["method"], path=scope["path"], exc_info=error)
    return Problem(INTERNAL, "the request could not be answered; see the service's log")
