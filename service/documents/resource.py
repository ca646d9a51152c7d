"""The HTTP resource of one mapping: a collection and its items."""

from collections.abc import Iterator
from collections.abc import Mapping as Dict
from contextlib import contextmanager

from pydantic_core import to_json
from starlette.requests import Request
from starlette.responses import Response
from starlette.routing import Route
from starlette.types import ASGIApp

from gears.contract.errors import ForeignKey, NotAnId, OutcomeUnknown, Refused
from gears.contract.mapping import Mapping
from gears.contract.write_tokens import Token
from gears.documents.mongo_form import stored_text
from gears.documents.validate import parse_json
from gears.engines import Written
from gears.process.failpoint import reached
from service.documents.bulk import NDJSON, Bulk
from service.documents.documents import Documents
from service.documents.from_body import new_text, patched_text, replacement_text
from service.documents.idempotency import Attempt, IdempotencyKeys, Made, idempotency_key
from service.documents.wait_confirmed import Confirmations, status_path
from service.http.bodies import JSON, MERGE_PATCH, check_type, off_loop, read_body
from service.http.entity_tags import Conditions, conditions_of, etag_of
from service.http.methods import Methods
from service.http.paths import check_new_id, id_of, path_of
from service.http.prefer_header import Preferences, preferences_of
from service.http.problems import BAD_REQUEST, ERRORS, NOT_CONFIRMED, NOT_FOUND, OUTCOME_UNKNOWN, Problem, problem_of
from service.http.writes_in_flight import Admission
from service.models import Model

DEFAULT_LIMIT, MAX_LIMIT = 100, 1000
"""Documents on a page of a collection."""


class Resource:
    """Handlers for one mapping.

    Args:
        documents: its documents.
        model: what they must look like; None for any JSON object.
        confirmations: waits for MongoDB.
        admission: counts the writes in flight.
        keys: those of requests that may be sent again.
    """

    def __init__(
        self,
        documents: Documents,
        model: Model | None,
        confirmations: Confirmations,
        admission: Admission,
        keys: IdempotencyKeys,
    ) -> None:
        self.mapping: Mapping = documents.mapping
        self._documents = documents
        self._model = model
        self._confirmations = confirmations
        self._admission = admission
        self._keys = keys

    def routes(self) -> list[Route]:
        """Where it is found."""
        collection = Methods(
            {"GET": self.list, "POST": self.create}, {"Accept-Post": ", ".join(JSON)}, query=("limit", "after")
        )
        handlers = {"GET": self.read, "PUT": self.replace, "PATCH": self.patch, "DELETE": self.delete}
        options = {"Accept-Patch": ", ".join(MERGE_PATCH)}
        item = Methods(handlers, options)
        bulk = Methods({**handlers, "POST": self.bulk}, options | {"Accept-Post": NDJSON})
        return [
            Route(f"/{self.mapping.prefix}", collection),
            Route(f"/{self.mapping.prefix}/_bulk", bulk),  # which may be a document's id as well
            Route(f"/{self.mapping.prefix}/{{id:any}}", item),
            Route(f"/{self.mapping.prefix}/", collection),  # Starlette takes a line break after it for none
        ]

    async def list(self, request: Request) -> Response:
        """A page of the collection, from MongoDB."""
        text = request.query_params.get("limit", str(DEFAULT_LIMIT))
        limit = int(text) if text.isascii() and text.isdigit() and len(text) <= len(str(MAX_LIMIT)) else 0
        if not 1 <= limit <= MAX_LIMIT:
            raise Problem(BAD_REQUEST, f"limit must be a whole number from 1 to {MAX_LIMIT}")
        after = request.query_params.get("after")
        try:
            if after:
                self.mapping.id_type.bound(after)
        except NotAnId as error:
            raise Problem(BAD_REQUEST, f"after must be an id: {error}") from error
        items, more = await self._documents.page(limit=limit, after=after or None)
        following = to_json(items[-1].id if more else None)
        texts = b",".join(stored_text(self.mapping, stored) for stored in items)
        return _json(200, b'{"items":[%b],"next":%b}' % (texts, following))

    async def create(self, request: Request) -> Response:
        """Store a new document."""
        key = idempotency_key(request.headers)
        preferences = preferences_of(request.headers.getlist("Prefer"))
        with self._admission.admit() as ticket:
            body = await read_body(request, JSON, ticket)
            async with self._admission.turn(len(body)):
                seed = None if key is None else f"{self.mapping.prefix} {key}"
                document_id, made, text = await off_loop(len(body), new_text, self.mapping, self._model, body, seed)
                await self._confirmations.prepared()
                headers = {"Location": path_of(self.mapping, document_id)}
                with _in_doubt(headers):
                    if key is not None:
                        async with self._keys.attempt(self.mapping.prefix, key, body) as attempt:
                            return await self._create_once(attempt, document_id, text, preferences, headers)
                    written = await self._documents.create(document_id, text, id_is_new=made)
                    return await self._written(201, written.token, written.document, preferences, headers)

    async def bulk(self, request: Request) -> ASGIApp:
        """Store new documents, a line each."""
        check_type(request.headers, (NDJSON,))
        if idempotency_key(request.headers) is not None:
            raise Problem(BAD_REQUEST, "Idempotency-Key is for one document; give those in a bulk ids of their own")
        preferences = preferences_of(request.headers.getlist("Prefer"))
        return Bulk(request, self._documents, self._model, self._confirmations, self._admission, preferences)

    async def read(self, request: Request) -> Response:
        """One document, as Redis holds it."""
        try:
            document_id = self._id(request)
        except NotAnId as error:
            raise Problem(NOT_FOUND, f"there is no such document: {error}") from error
        conditions = conditions_of(request.headers)
        try:
            document = await self._documents.read(document_id)
        except ForeignKey as error:
            raise Problem(NOT_FOUND, f"there is no document with the id {document_id!r}: {error}") from error
        conditions.check_match(document)
        if document is None:
            raise self._documents.not_found(document_id)
        headers = {"ETag": etag_of(document)}
        if conditions.not_modified(document):
            return Response(status_code=304, headers=headers)
        return _json(200, document, headers)

    async def replace(self, request: Request) -> Response:
        """Store a document under its id."""
        document_id = self._id(request)
        conditions = conditions_of(request.headers)
        preferences = preferences_of(request.headers.getlist("Prefer"))
        with self._admission.admit() as ticket:
            body = await read_body(request, JSON, ticket)
            async with self._admission.turn(len(body)):
                text = await off_loop(len(body), replacement_text, self.mapping, self._model, body, document_id)
                await self._confirmations.prepared()
                await self._check_path(document_id)
                put = await self._documents.put(document_id, text, conditions)
                return await self._written(
                    201 if put.created else 200, put.written.token, put.written.document, preferences
                )

    async def patch(self, request: Request) -> Response:
        """Change a document by a JSON Merge Patch."""
        document_id = self._id(request)
        conditions = conditions_of(request.headers)
        preferences = preferences_of(request.headers.getlist("Prefer"))
        with self._admission.admit() as ticket:
            body = await read_body(request, MERGE_PATCH, ticket)
            async with self._admission.turn(len(body)):
                await self._confirmations.prepared()
                written = await self._patch(document_id, body, conditions)
                return await self._written(200, written.token, written.document, preferences)

    async def delete(self, request: Request) -> Response:
        """Delete a document."""
        document_id = self._id(request)
        conditions = conditions_of(request.headers)
        preferences = preferences_of(request.headers.getlist("Prefer"))
        with self._admission.admit() as ticket:
            ticket.begin()
            await self._confirmations.prepared()
            written = await self._documents.delete(document_id, conditions)
            return await self._written(204, written.token, None, preferences)

    def _id(self, request: Request) -> str:
        return id_of(self.mapping, request.scope["raw_path"])

    async def _create_once(
        self, attempt: Attempt, document_id: str, text: bytes, preferences: Preferences, headers: Dict[str, str]
    ) -> Response:
        """Store a new document, unless a request before this one has, which is then answered again."""
        word = None if attempt.made is None else await self._documents.standing(attempt.made.token)
        try:
            if attempt.made is None or word not in ("committed", "pending"):
                written = await self._documents.create_once(document_id, text)
                reached("made by a key")
                await attempt.remember(Made(written.token, written.document))
            made = attempt.made
            assert made is not None
            return await self._written(
                201, made.token, made.document, preferences, headers, committed=word == "committed"
            )
        except ERRORS as error:
            problem = problem_of(error)
            if problem is not None and problem.kind.status != NOT_CONFIRMED.status:
                await attempt.forget()
            raise

    async def _check_path(self, document_id: str) -> None:
        """Raise `Refused` for an id that no new document may have, unless others have made one."""
        try:
            check_new_id(document_id)
        except Refused:
            if await self._documents.read(document_id) is None:
                raise

    async def _patch(self, document_id: str, body: bytes, conditions: Conditions) -> Written:
        patch = await off_loop(len(body), parse_json, body)

        async def change(current: bytes) -> bytes:
            size = len(body) + len(current)
            return await off_loop(size, patched_text, self.mapping, self._model, current, patch, document_id)

        return await self._documents.change(document_id, conditions, change)

    async def _written(
        self,
        status: int,
        token: Token,
        document: bytes | None,
        preferences: Preferences,
        headers: Dict[str, str] | None = None,
        *,
        committed: bool = False,
    ) -> Response:
        """The answer to a write: after its confirmation, or 202 for a writer who doesn't wait for that."""
        reached("written to Redis")
        confirmed = committed or await self._confirmations.confirmed(self.mapping, token, preferences)
        reached("confirmed")
        tag = {} if document is None else {"ETag": etag_of(document)}
        every = {"Sync-Token": str(token)} | tag | dict(headers or {}) | preferences.applied(accepted=not confirmed)
        if not confirmed:
            return _json(202, to_json({"token": str(token), "sync": status_path(self.mapping, token)}), every)
        if document is None:
            return Response(status_code=status, headers=every)
        return _json(status, document, every)


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


def _json(status: int, content: bytes, headers: Dict[str, str] | None = None) -> Response:
    return Response(content, status, headers=headers, media_type="application/json")
