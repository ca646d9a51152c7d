"""The page's files: plain HTML, CSS and JavaScript modules, which everybody may read and which hold no data."""

from importlib.resources import files

from starlette.requests import Request
from starlette.responses import Response
from starlette.routing import Route

from service.http.methods import Handler, Methods
from service.http.page_paths import FOLDER, PAGE

_MEDIA_TYPES = {"html": "text/html", "css": "text/css", "js": "text/javascript", "svg": "image/svg+xml"}

_HEADERS = {
    "Cache-Control": "no-cache",
    "Content-Security-Policy": "default-src 'none'; script-src 'self'; style-src 'self'; connect-src 'self'; "
    "img-src 'self' data:; base-uri 'none'; form-action 'none'; frame-ancestors 'none'",
    "Referrer-Policy": "no-referrer",
    "X-Content-Type-Options": "nosniff",
}


def _read() -> dict[str, tuple[str, bytes]]:
    """The media type and the content of each, by its path."""
    folder = files("service.page") / "static"
    return {
        PAGE if file.name == "index.html" else FOLDER + file.name: (
            _MEDIA_TYPES[file.name.rpartition(".")[2]],
            file.read_bytes(),
        )
        for file in folder.iterdir()
        if file.is_file()
    }


_FILES = _read()


def file_routes() -> list[Route]:
    """A route for each."""
    return [Route(path, Methods({"GET": _file(*file)})) for path, file in _FILES.items()]


def _file(media_type: str, content: bytes) -> Handler:
    async def answer(_: Request) -> Response:
        return Response(content, media_type=media_type, headers=_HEADERS)

    return answer
