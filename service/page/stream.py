"""The stream of samples as server-sent events (https://html.spec.whatwg.org/#server-sent-events)."""

from typing import Any

import anyio
from anyio import CancelScope
from pydantic_core import to_json
from starlette.types import Receive, Scope, Send

from service.page.sampler import Sampler

_HEADERS = [
    (b"content-type", b"text/event-stream"),
    (b"cache-control", b"no-store"),
    (b"x-accel-buffering", b"no"),  # nginx would hold it back
]


class Stream:
    """The answer to one viewer, as an ASGI application: `hello` with what never changes, then `sample` after `sample`.

    Args:
        sampler: has the samples.
        hello: what never changes.
    """

    def __init__(self, sampler: Sampler, hello: dict[str, Any]) -> None:
        self._sampler = sampler
        self._hello = hello

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        with self._sampler.viewing():
            await send({"type": "http.response.start", "status": 200, "headers": _HEADERS})
            if scope["method"] != "HEAD":
                async with anyio.create_task_group() as tasks:
                    tasks.start_soon(_until_gone, receive, tasks.cancel_scope)
                    await self._send_all(send)
                    tasks.cancel_scope.cancel()
            await send({"type": "http.response.body", "body": b"", "more_body": False})

    async def _send_all(self, send: Send) -> None:
        first = self._hello | {"history": self._sampler.history()}
        await send({"type": "http.response.body", "body": _event("hello", to_json(first)), "more_body": True})
        async for sample in self._sampler.samples():
            await send({"type": "http.response.body", "body": _event("sample", sample), "more_body": True})


async def _until_gone(receive: Receive, viewing: CancelScope) -> None:
    while (await receive())["type"] != "http.disconnect":
        pass
    viewing.cancel()


def _event(name: str, data: bytes) -> bytes:
    return b"event: %b\ndata: %b\n\n" % (name.encode(), data)
