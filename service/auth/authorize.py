"""Who may do what, where there are tokens: decided before anything of the request is looked at."""

from starlette.types import ASGIApp, Receive, Scope, Send

from service.auth.bearer_tokens import Scope as TokenScope
from service.auth.bearer_tokens import Tokens
from service.http.page_paths import EVENTS, FOLDER, FREEZE, PAGE
from service.http.paths import FILES
from service.http.problems import FORBIDDEN, UNAUTHORIZED, Problem

OPEN = frozenset(
    {"/healthz", "/readyz", "/openapi.json", "/docs", "/docs/show.js", *(f"/docs/{name}" for name in FILES)}
)
"""What everybody may see."""

HIDE_REASONS = "writethrough.hide_reasons"
"""Set in the ASGI scope of requests for open paths by those without the scope `admin`."""

_CHALLENGE = 'Bearer realm="writethrough"'


def needed_scope(method: str, path: str) -> TokenScope | None:
    """The scope that a request needs; None when everybody may make it.

    Args:
        method: in upper case.
        path: as routes are matched.
    """
    if path in OPEN:
        return None
    if path in ("/sync", "/sync/audits", "/metrics", EVENTS, FREEZE):
        return TokenScope.ADMIN
    if path == PAGE or path.startswith(FOLDER):
        return None
    return TokenScope.READ if method in ("GET", "HEAD", "OPTIONS") else TokenScope.WRITE


class Authorize:
    """ASGI middleware that lets only those through whose bearer token has the scope; it raises `Problem`."""

    def __init__(self, app: ASGIApp, tokens: Tokens) -> None:
        self._app = app
        self._tokens = tokens

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        if scope["type"] == "http":
            token = _bearer(scope["headers"])
            granted = self._tokens.scopes(token) if token else frozenset()
            needed = needed_scope(scope["method"], scope["path"])
            if needed is not None and needed not in granted:
                raise _forbidden(needed) if granted else _unauthorized(token)
            if TokenScope.ADMIN not in granted:
                scope[HIDE_REASONS] = True
        await self._app(scope, receive, send)


def _bearer(headers: list[tuple[bytes, bytes]]) -> str | None:
    """The bearer token; None when there is none, or more than one Authorization."""
    sent = [value for name, value in headers if name == b"authorization"]
    if len(sent) != 1:
        return None
    scheme, _, token = sent[0].decode("latin-1").partition(" ")
    return token.strip() if scheme.lower() == "bearer" else None


def _unauthorized(token: str | None) -> Problem:
    if token is None:
        detail, challenge = "send a token: Authorization: Bearer <token>", _CHALLENGE
    else:
        detail, challenge = "this token is not known here", f'{_CHALLENGE}, error="invalid_token"'
    return Problem(UNAUTHORIZED, detail, headers={"WWW-Authenticate": challenge})


def _forbidden(needed: TokenScope) -> Problem:
    challenge = f'{_CHALLENGE}, error="insufficient_scope", scope="{needed}"'
    return Problem(
        FORBIDDEN, f"this token lacks the scope {needed}", headers={"WWW-Authenticate": challenge}, scope=needed
    )
