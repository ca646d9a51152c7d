"""`/openapi.json`, and `/docs`, which shows it with Swagger UI from this machine's own files."""

from typing import Any

from pydantic_core import to_json
from starlette.requests import Request
from starlette.responses import FileResponse, Response
from starlette.routing import Route
from swagger_ui_bundle import swagger_ui_path

from service.http.methods import Handler, Methods
from service.http.paths import FILES

_PAGE = b"""<!doctype html>
<html lang="en">
<head>
<meta charset="utf-8">
<title>Writethrough API</title>
<link rel="icon" href="docs/favicon-32x32.png">
<link rel="stylesheet" href="docs/swagger-ui.css">
</head>
<body>
<div id="swagger-ui"></div>
<script src="docs/swagger-ui-bundle.js"></script>
<script src="docs/show.js"></script>
</body>
</html>
"""

# This Swagger UI knows OpenAPI 3.0; what is said here in 3.1 reads the same, so only the number has to be changed.
_SCRIPT = b"""fetch("openapi.json").then(answer => answer.json()).then(spec => SwaggerUIBundle({
  spec: {...spec, openapi: "3.0.3"},
  dom_id: "#swagger-ui",
  validatorUrl: null,
}));
"""

_POLICY = {
    "Content-Security-Policy": "default-src 'none'; script-src 'self'; connect-src 'self'; "
    "style-src 'self' 'unsafe-inline'; img-src 'self' data:; base-uri 'none'; frame-ancestors 'none'"
}


def docs_routes(document: dict[str, Any]) -> list[Route]:
    """The routes for an OpenAPI document."""
    return [
        Route("/openapi.json", Methods({"GET": _content(to_json(document), "application/json")})),
        Route("/docs", Methods({"GET": _content(_PAGE, "text/html", _POLICY)})),
        Route("/docs/show.js", Methods({"GET": _content(_SCRIPT, "text/javascript")})),
        *(Route(f"/docs/{name}", Methods({"GET": _file(name)})) for name in FILES),
    ]


def _content(content: bytes, media_type: str, headers: dict[str, str] | None = None) -> Handler:
    async def answer(_: Request) -> Response:
        return Response(content, media_type=media_type, headers=headers)

    return answer


def _file(name: str) -> Handler:
    async def answer(_: Request) -> Response:
        return FileResponse(swagger_ui_path / name)

    return answer
