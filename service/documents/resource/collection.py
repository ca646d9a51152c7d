"""A collection over HTTP: its pages, new documents one by one, and many in bulk."""

from collections.abc import Iterator
from collections.abc import Mapping as Dict
from contextlib import contextmanager

from pydantic_core import to_json
from starlette.requests import Request
from starlette.responses import Response
from starlette.types import ASGIApp

from gears.contract.mongo_form import stored_text
from gears.errors import NotAnId, OutcomeUnknown
from gears.process.failpoint import reached
from service.documents.from_body import new_text
from service.documents.idempotency import Attempt, Made, idempotency_key
from service.documents.resource.bulk import NDJSON, Bulk
from service.documents.resource.shared import Shared
from service.http.bodies import JSON, check_type, off_loop, read_body
from service.http.paths import path_of
from service.http.prefer_header import Preferences, preferences_of
from service.http.problems import BAD_REQUEST, ERRORS, NOT_CONFIRMED, OUTCOME_UNKNOWN, Problem, problem_of

DEFAULT_LIMIT, MAX_LIMIT = 100, 1000
"""Documents on a page of a collection."""


class CollectionResource:
    """Handlers for a mapping's collection.

    Args:
        shared: what they need.
    """

    def __init__(self, shared: Shared) -> None:
        self._shared = shared
        self._mapping = shared.mapping

    async def list(self, request: Request) -> Response:
        """A page of the collection, from MongoDB."""
        text = request.query_params.get("limit", str(DEFAULT_LIMIT))
        limit = int(text) if text.isascii() and text.isdigit() and len(text) <= len(str(MAX_LIMIT)) else 0
        if not 1 <= limit <= MAX_LIMIT:
            raise Problem(BAD_REQUEST, f"limit must be a whole number from 1 to {MAX_LIMIT}")
        after = request.query_params.get("after")
        try:
            if after:
                self._mapping.id_type.bound(after)
        except NotAnId as error:
            raise Problem(BAD_REQUEST, f"after must be an id: {error}") from error
        items, more = await self._shared.reads.page(limit=limit, after=after or None)
        following = to_json(items[-1].id if more else None)
        texts = b",".join(stored_text(self._mapping, stored) for stored in items)
        return Response(b'{"items":[%b],"next":%b}' % (texts, following), media_type="application/json")

    async def create(self, request: Request) -> Response:
        """Store a new document."""
        key = idempotency_key(request.headers)
        preferences = preferences_of(request.headers.getlist("Prefer"))
        with self._shared.admission.admit() as ticket:
            body = await read_body(request, JSON, ticket)
            async with self._shared.admission.turn(len(body)):
                seed = None if key is None else f"{self._mapping.prefix} {key}"
                document_id, made, text = await off_loop(
                    len(body), new_text, self._mapping, self._shared.model, body, seed
                )
                await self._shared.confirmations.prepared()
                headers = {"Location": path_of(self._mapping, document_id)}
                with _in_doubt(headers):
                    if key is not None:
                        async with self._shared.keys.attempt(self._mapping.prefix, key, body) as attempt:
                            return await self._create_once(attempt, document_id, text, preferences, headers)
                    written = await self._shared.writes.create(document_id, text, id_is_new=made)
                    return await self._shared.confirmations.answer(
                        self._mapping, 201, written.token, written.document, preferences, headers
                    )

    async def bulk(self, request: Request) -> ASGIApp:
        """Store new documents, a line each."""
        check_type(request.headers, (NDJSON,))
        if idempotency_key(request.headers) is not None:
            raise Problem(BAD_REQUEST, "Idempotency-Key is for one document; give those in a bulk ids of their own")
        preferences = preferences_of(request.headers.getlist("Prefer"))
        return Bulk(request, self._shared, preferences)

    async def _create_once(
        self, attempt: Attempt, document_id: str, text: bytes, preferences: Preferences, headers: Dict[str, str]
    ) -> Response:
        """Store a new document, unless a request before this one has, which is then answered again."""
        word = None if attempt.made is None else await self._shared.writes.standing(attempt.made.token)
        try:
            if attempt.made is None or word not in ("committed", "pending"):
                written = await self._shared.writes.create_once(document_id, text)
                reached("made by a key")
                await attempt.remember(Made(written.token, written.document))
            made = attempt.made
            assert made is not None
            return await self._shared.confirmations.answer(
                self._mapping, 201, made.token, made.document, preferences, headers, committed=word == "committed"
            )
        except ERRORS as error:
            problem = problem_of(error)
            if problem is not None and problem.kind.status != NOT_CONFIRMED.status:
                await attempt.forget()
            raise


@contextmanager
def _in_doubt(headers: Dict[str, str]) -> Iterator[None]:
    """Add these headers to a 504: whoever gets one needs to know what to ask about."""
    try:
        yield
    except OutcomeUnknown as error:
        raise Problem(OUTCOME_UNKNOWN, str(error), headers=headers) from error
    except Problem as problem:
        if problem.kind.status == NOT_CONFIRMED.status:
            problem.headers |= headers
        raise
