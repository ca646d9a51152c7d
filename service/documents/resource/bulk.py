"""`POST /{mapping}/_bulk`: a document a line in, a result a line out, in order, as they come.

Lines are stored as many at a time as have arrived, while those before them wait for MongoDB. When a few such batches
wait, no more is read; nor is it while the client doesn't read its results. So the memory that it takes doesn't depend
on how much there is.
"""

import asyncio
from codecs import BOM_UTF8
from collections.abc import AsyncIterator, Sequence
from dataclasses import dataclass

import anyio
from anyio.streams.memory import MemoryObjectSendStream
from pydantic_core import to_json
from starlette.requests import ClientDisconnect, Request
from starlette.types import Receive, Scope, Send

from gears.contract.write_tokens import Token
from gears.engines import Written
from service.documents.from_body import new_text
from service.documents.resource.shared import Shared
from service.documents.write import New
from service.http.bodies import BODY_SECONDS, MAX_BODY, off_loop
from service.http.prefer_header import Preferences
from service.http.problems import ERRORS, REQUEST_TIMEOUT, SHUTTING_DOWN, TOO_LARGE, Problem, problem_of
from service.http.writes_in_flight import Ticket

NDJSON = "application/x-ndjson"

_AT_ONCE = 200
"""Most lines that are stored at a time."""

_WAITING = 10
"""Most batches of lines that wait for MongoDB."""

Line = bytes | None
"""What was sent; None for what was too long to be kept."""


class Lines:
    """Cuts what arrives into lines, without the empty ones."""

    def __init__(self) -> None:
        self._parts: list[bytes] = []
        self.size = 0
        """Bytes of the line whose end hasn't come."""
        self._begun = False

    def feed(self, data: bytes) -> list[Line]:
        """The lines that end in what has arrived."""
        first, *others = data.split(b"\n")
        self._add(first)
        ended: list[Line] = []
        for each in others:
            ended += self.end()
            self._add(each)
        return ended

    def end(self) -> list[Line]:
        """The line that ends here, if there is one."""
        line = None if self.size > MAX_BODY else b"".join(self._parts)
        self._parts, self.size = [], 0
        if line is not None and not self._begun:
            line = line.removeprefix(BOM_UTF8)
        self._begun = True
        return [line] if line is None or line.strip() else []

    def _add(self, part: bytes) -> None:
        self.size += len(part)
        if self.size > MAX_BODY:
            self._parts.clear()
        elif part:
            self._parts.append(part)


@dataclass(frozen=True, slots=True)
class Outcome:
    """What became of a line so far.

    Args:
        document_id: the document's id; None where the line is none.
        token: of its write; None if nothing was written.
        problem: why not.
    """

    document_id: str | None = None
    token: Token | None = None
    problem: Problem | None = None


class Bulk:
    """The answer to one such request, as an ASGI application.

    Args:
        request: with the lines.
        shared: what the mapping's handlers need.
        preferences: how long each line waits.
    """

    def __init__(self, request: Request, shared: Shared, preferences: Preferences) -> None:
        self._request = request
        self._shared = shared
        self._mapping = shared.mapping
        self._preferences = preferences

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        headers = [(b"content-type", NDJSON.encode())]
        await send({"type": "http.response.start", "status": 200, "headers": headers})
        written, waiting = anyio.create_memory_object_stream[list[Outcome]](_WAITING)
        async with anyio.create_task_group() as tasks, waiting:
            tasks.start_soon(self._write_all, written)
            async for outcomes in waiting:
                results = await self._results(outcomes)
                await send({"type": "http.response.body", "body": results, "more_body": True})
        await send({"type": "http.response.body", "body": b"", "more_body": False})

    async def _write_all(self, written: MemoryObjectSendStream[list[Outcome]]) -> None:
        """Store what arrives; in the end, why no more is taken, if there is more."""
        async with written:
            with self._shared.admission.admit() as ticket:
                try:
                    async for lines in self._arriving(ticket):
                        await written.send(await self._write(lines))
                except ClientDisconnect:
                    return
                except Problem as problem:
                    await written.send([Outcome(problem=problem)])

    async def _arriving(self, ticket: Ticket) -> AsyncIterator[Sequence[Line]]:
        """The lines, at most so many at a time.

        Raises:
            Problem: they come too slowly, too much is in flight, or the process ends.
            ClientDisconnect: the client went away.
        """
        lines = Lines()
        parts = self._request.stream()
        while True:
            try:
                async with asyncio.timeout(BODY_SECONDS):
                    part = await anext(parts, None)
            except TimeoutError:
                raise Problem(REQUEST_TIMEOUT, f"nothing more came within {BODY_SECONDS:g} s") from None
            ended = lines.end() if part is None else lines.feed(part)
            ticket.hold_only(lines.size + sum(len(line) for line in ended if line is not None))
            for n in range(0, len(ended), _AT_ONCE):
                yield ended[n : n + _AT_ONCE]
            if part is None:
                return
            if self._shared.confirmations.stopping:
                raise Problem(SHUTTING_DOWN, "this process ends; send what has no result to another one")

    async def _write(self, lines: Sequence[Line]) -> list[Outcome]:
        """Store these lines, in their order."""
        composed = [await self._compose(line) for line in lines]
        new = [each for each in composed if isinstance(each, New)]
        try:
            with self._shared.admission.admit() as ticket:
                ticket.begin()
                async with self._shared.admission.turn(max((len(each.text) for each in new), default=0)):
                    await self._shared.confirmations.prepared()
                    stored = iter(await self._shared.writes.create_all(new))
        except ERRORS as error:
            problem = _problem_of(error)
            return [Outcome(problem=each if isinstance(each, Problem) else problem) for each in composed]
        return [_outcome(each, next(stored)) if isinstance(each, New) else Outcome(problem=each) for each in composed]

    async def _compose(self, line: Line) -> New | Problem:
        if line is None:
            return Problem(TOO_LARGE, f"the line is larger than {MAX_BODY // 2**20} MiB")
        try:
            return New(*await off_loop(len(line), new_text, self._mapping, self._shared.model, line))
        except ERRORS as error:
            return _problem_of(error)

    async def _results(self, outcomes: Sequence[Outcome]) -> bytes:
        """What the client is told, once MongoDB has confirmed it."""
        tokens = [outcome.token for outcome in outcomes if outcome.token is not None]
        confirmed = iter(await self._shared.confirmations.all_confirmed(self._mapping, tokens, self._preferences))
        return b"".join(
            self._result(outcome, outcome.problem if outcome.token is None else next(confirmed)) for outcome in outcomes
        )

    def _result(self, outcome: Outcome, confirmed: bool | Problem | None) -> bytes:
        said: dict[str, object] = {}
        if isinstance(confirmed, Problem):
            said["status"] = confirmed.kind.status
        else:
            said["status"] = 201 if confirmed else 202
        if outcome.document_id is not None:
            said["id"] = self._mapping.id_type.json(outcome.document_id)
        if outcome.token is not None:
            said["token"] = str(outcome.token)
        if isinstance(confirmed, Problem):
            said["problem"] = confirmed.content()
        return to_json(said) + b"\n"


def _problem_of(error: Exception) -> Problem:
    """The same without its traceback, which would keep what the error was about."""
    problem = problem_of(error)
    assert problem is not None
    return problem.with_traceback(None)


def _outcome(new: New, stored: Written | Problem) -> Outcome:
    if isinstance(stored, Problem):
        return Outcome(new.document_id, problem=stored)
    return Outcome(new.document_id, stored.token)
