"""Reading a request's body: of an accepted type, and never more of it than may be."""

import asyncio
from codecs import BOM_UTF8
from collections.abc import Callable
from functools import partial
from typing import ParamSpec, TypeVar

from anyio import CapacityLimiter, to_thread
from starlette.datastructures import Headers
from starlette.requests import Request

from service.http.problems import MALFORMED_JSON, REQUEST_TIMEOUT, TOO_LARGE, UNSUPPORTED_MEDIA_TYPE, Problem
from service.http.writes_in_flight import Ticket

P = ParamSpec("P")
R = TypeVar("R")

MAX_BODY = 16 * 1024 * 1024
"""Largest body in bytes: no document can be larger in MongoDB."""

BODY_SECONDS = 60.0
"""How long a body may take to arrive."""

JSON = ("application/json",)
MERGE_PATCH = ("application/merge-patch+json", "application/json")

_LARGE = 64 * 1024
"""Bytes from which on a body is worked on in a thread, so that other requests go on meanwhile."""

_THREADS = CapacityLimiter(2)


async def read_body(request: Request, accepted: tuple[str, ...], ticket: Ticket) -> bytes:
    """The whole body, without the byte order mark that some put before it.

    Args:
        request: the request.
        accepted: media types that may be sent here.
        ticket: counts its bytes as they arrive, and the write once all are there.

    Raises:
        Problem: wrong type, too large, too slow, empty, or too much in flight.
        ClientDisconnect: the client went away.
    """
    check_type(request.headers, accepted)
    _check_size(int(request.headers.get("Content-Length", 0)))
    chunks: list[bytes] = []
    size = 0
    try:
        async with asyncio.timeout(BODY_SECONDS):
            async for chunk in request.stream():
                size += len(chunk)
                _check_size(size)
                ticket.hold(len(chunk))
                chunks.append(chunk)
    except TimeoutError:
        raise Problem(
            REQUEST_TIMEOUT, f"the body took longer than {BODY_SECONDS:g} s", headers={"Connection": "close"}
        ) from None
    body = b"".join(chunks).removeprefix(BOM_UTF8)
    if not body:
        raise Problem(MALFORMED_JSON, "the body is empty; send a JSON object")
    ticket.begin()
    return body


async def off_loop(size: int, work: Callable[P, R], *args: P.args, **kwargs: P.kwargs) -> R:
    """Do this work on so many bytes, in a thread if they are many."""
    if size < _LARGE:
        return work(*args, **kwargs)
    return await to_thread.run_sync(partial(work, *args, **kwargs), limiter=_THREADS)


def check_type(headers: Headers, accepted: tuple[str, ...]) -> None:
    """Raise `Problem` unless a body is of an accepted type, in UTF-8 and not compressed."""
    hint = {"Accept-Patch" if "merge-patch" in accepted[0] else "Accept-Post": ", ".join(accepted)}
    media_type, *parameters = (part.strip().lower() for part in headers.get("Content-Type", "").split(";"))
    if media_type not in accepted:
        raise Problem(UNSUPPORTED_MEDIA_TYPE, f"the Content-Type must be {' or '.join(accepted)}", headers=hint)
    charset = next(
        (p.partition("=")[2].strip(' "') for p in parameters if p.partition("=")[0].strip() == "charset"), "utf-8"
    )
    if charset not in ("utf-8", "utf8"):
        raise Problem(UNSUPPORTED_MEDIA_TYPE, f"the charset must be utf-8, not {charset}", headers=hint)
    if headers.get("Content-Encoding", "identity").lower() != "identity":
        raise Problem(UNSUPPORTED_MEDIA_TYPE, "the body must be sent without a Content-Encoding", headers=hint)


def _check_size(size: int) -> None:
    if size > MAX_BODY:
        raise Problem(TOO_LARGE, f"the body is larger than {MAX_BODY // 2**20} MiB")
