"""The outermost layer of the API."""

import gc
import weakref

from starlette.types import Message, Receive, Scope, Send

from service.http.catch_all import Guard
from service.http.problems import NOT_FOUND, Problem


class Body:
    """Something large."""


async def test_a_request_that_fails_leaves_nothing_behind_for_the_garbage_collector() -> None:
    bodies: list[weakref.ref[Body]] = []

    async def handler(_scope: Scope, _receive: Receive, _send: Send) -> None:
        body = Body()
        bodies.append(weakref.ref(body))
        raise Problem(NOT_FOUND, f"nothing like {body}")

    sent: list[Message] = []

    async def receive() -> Message:
        return {"type": "http.disconnect"}

    async def send(message: Message) -> None:
        sent.append(message)

    gc.disable()
    try:
        await Guard(handler)({"type": "http", "method": "GET", "path": "/"}, receive, send)
        assert sent[0]["status"] == 404
        assert [body() for body in bodies] == [None]
    finally:
        gc.enable()
