"""Pages from elsewhere that may use the API in browsers (CORS): none, unless `WT_CORS_ORIGINS` names their origins."""

import re

from starlette.middleware import Middleware
from starlette.middleware.cors import CORSMiddleware

from gears.errors import ConfigError

ANY = "*"

EXPOSED = ("ETag", "Location", "Preference-Applied", "Retry-After", "Sync-Token")
"""Headers of answers that scripts may read, beside those that they always may."""

_METHODS = ("GET", "HEAD", "POST", "PUT", "PATCH", "DELETE")

_ORIGIN = re.compile(r"[a-z][a-z0-9+.-]*://(?:[a-z0-9._-]+|\[[0-9a-f:.]+\])(?::[0-9]+)?")
"""As browsers send it: in lower case, without a path (https://html.spec.whatwg.org/#ascii-serialisation-of-an-origin)."""


def cors(origins: str) -> list[Middleware]:
    """The middleware that lets pages of these origins in; none if there are none.

    Scripts may send any header, a bearer token among them; cookies play no part.

    Args:
        origins: separated by commas, or `*` for all.

    Raises:
        ConfigError: one of them is no origin.
    """
    names = [name.strip() for name in origins.split(",") if name.strip()]
    for name in names:
        if name != ANY and not _ORIGIN.fullmatch(name):
            raise ConfigError(
                f"WT_CORS_ORIGINS: {name!r} is no origin; write it as browsers do, scheme://host or "
                "scheme://host:port in lower case without a path, such as https://app.example, or * for all"
            )
    if not names:
        return []
    return [
        Middleware(
            CORSMiddleware,
            allow_origins=names,
            allow_methods=_METHODS,
            allow_headers=[ANY],
            expose_headers=EXPOSED,
        )
    ]
