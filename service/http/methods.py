"""An ASGI endpoint with one handler a method: GET answers HEAD too, OPTIONS and 405 name what there is.

A query parameter that the method doesn't know, or that is there twice, is a bad request: ignored, it would be a typing
error that nobody sees.
"""

from collections.abc import Awaitable, Callable, Collection, Mapping

from starlette.requests import Request
from starlette.responses import Response
from starlette.types import ASGIApp, Receive, Scope, Send

from service.http.problems import BAD_REQUEST, METHOD_NOT_ALLOWED, Problem

Handler = Callable[[Request], Awaitable[ASGIApp]]

_READING = ("GET", "HEAD")


class Methods:
    """See the module.

    Args:
        handlers: by method, in upper case.
        options: headers of the answer to OPTIONS beside `Allow`.
        query: the query parameters that GET knows; the others know none.
    """

    def __init__(
        self, handlers: Mapping[str, Handler], options: Mapping[str, str] | None = None, *, query: Collection[str] = ()
    ) -> None:
        self._handlers = dict(handlers)
        if "GET" in handlers:
            self._handlers["HEAD"] = handlers["GET"]
        self._allow = ", ".join(sorted([*self._handlers, "OPTIONS"]))
        self._query = query
        self._options = {"Allow": self._allow} | dict(options or {})

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        request = Request(scope, receive, send)
        if handler := self._handlers.get(request.method):
            _check_query(request, self._query if request.method in _READING else ())
            response: ASGIApp = await handler(request)
        elif request.method == "OPTIONS":
            response = Response(status_code=204, headers=self._options)
        else:
            raise Problem(
                METHOD_NOT_ALLOWED,
                f"{request.url.path} doesn't have the method {request.method}",
                headers={"Allow": self._allow},
            )
        await response(scope, receive, send)


def _check_query(request: Request, known: Collection[str]) -> None:
    if not request.scope["query_string"]:
        return
    seen: set[str] = set()
    for name, _ in request.query_params.multi_items():
        if name not in known:
            hint = f"known are: {', '.join(known)}" if known else f"{request.method} knows none"
            raise Problem(BAD_REQUEST, f"the query parameter {name[:100]!r} is not known here; {hint}")
        if name in seen:
            raise Problem(BAD_REQUEST, f"the query parameter {name!r} is there twice; send it once")
        seen.add(name)
