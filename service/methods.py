"""An ASGI endpoint with one handler a method: GET answers HEAD too, OPTIONS and 405 name what there is."""

from collections.abc import Awaitable, Callable, Mapping

from starlette.requests import Request
from starlette.responses import Response
from starlette.types import Receive, Scope, Send

from service.problems import METHOD_NOT_ALLOWED, Problem

Handler = Callable[[Request], Awaitable[Response]]


class Methods:
    """See the module.

    Args:
        handlers: by method, in upper case.
        options: headers of the answer to OPTIONS beside `Allow`.
    """

    def __init__(self, handlers: Mapping[str, Handler], options: Mapping[str, str] | None = None) -> None:
        self._handlers = dict(handlers)
        if "GET" in handlers:
            self._handlers["HEAD"] = handlers["GET"]
        self._allow = ", ".join(sorted([*self._handlers, "OPTIONS"]))
        self._options = {"Allow": self._allow} | dict(options or {})

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        request = Request(scope, receive, send)
        if handler := self._handlers.get(request.method):
            response = await handler(request)
        elif request.method == "OPTIONS":
            response = Response(status_code=204, headers=self._options)
        else:
            raise Problem(
                METHOD_NOT_ALLOWED,
                f"{request.url.path} doesn't have the method {request.method}",
                headers={"Allow": self._allow},
            )
        await response(scope, receive, send)
