"""One document over HTTP: read, replaced, patched, deleted."""

from starlette.requests import Request
from starlette.responses import Response

from gears.documents.validate import parse_json
from gears.engines import Written
from gears.errors import ForeignKey, NotAnId, Refused
from service.documents.from_body import patched_text, replacement_text
from service.documents.resource.shared import Shared
from service.http.bodies import JSON, MERGE_PATCH, off_loop, read_body
from service.http.entity_tags import Conditions, conditions_of, etag_of
from service.http.paths import check_new_id, id_of
from service.http.prefer_header import preferences_of
from service.http.problems import NOT_FOUND, Problem


class ItemResource:
    """Handlers for a mapping's documents.

    Args:
        shared: what they need.
    """

    def __init__(self, shared: Shared) -> None:
        self._shared = shared
        self._mapping = shared.mapping

    async def read(self, request: Request) -> Response:
        """One document, as Redis holds it."""
        try:
            document_id = self._id(request)
        except NotAnId as error:
            raise Problem(NOT_FOUND, f"there is no such document: {error}") from error
        conditions = conditions_of(request.headers)
        try:
            document = await self._shared.reads.read(document_id)
        except ForeignKey as error:
            raise Problem(NOT_FOUND, f"there is no document with the id {document_id!r}: {error}") from error
        conditions.check_match(document)
        if document is None:
            raise self._shared.reads.not_found(document_id)
        headers = {"ETag": etag_of(document)}
        if conditions.not_modified(document):
            return Response(status_code=304, headers=headers)
        return Response(document, headers=headers, media_type="application/json")

    async def replace(self, request: Request) -> Response:
        """Store a document under its id."""
        document_id = self._id(request)
        conditions = conditions_of(request.headers)
        preferences = preferences_of(request.headers.getlist("Prefer"))
        with self._shared.admission.admit() as ticket:
            body = await read_body(request, JSON, ticket)
            async with self._shared.admission.turn(len(body)):
                text = await off_loop(len(body), replacement_text, self._mapping, self._shared.model, body, document_id)
                await self._shared.confirmations.prepared()
                await self._check_path(document_id)
                put = await self._shared.writes.put(document_id, text, conditions)
                return await self._shared.confirmations.answer(
                    self._mapping, 201 if put.created else 200, put.written.token, put.written.document, preferences
                )

    async def patch(self, request: Request) -> Response:
        """Change a document by a JSON Merge Patch."""
        document_id = self._id(request)
        conditions = conditions_of(request.headers)
        preferences = preferences_of(request.headers.getlist("Prefer"))
        with self._shared.admission.admit() as ticket:
            body = await read_body(request, MERGE_PATCH, ticket)
            async with self._shared.admission.turn(len(body)):
                await self._shared.confirmations.prepared()
                written = await self._patch(document_id, body, conditions)
                return await self._shared.confirmations.answer(
                    self._mapping, 200, written.token, written.document, preferences
                )

    async def delete(self, request: Request) -> Response:
        """Delete a document."""
        document_id = self._id(request)
        conditions = conditions_of(request.headers)
        preferences = preferences_of(request.headers.getlist("Prefer"))
        with self._shared.admission.admit() as ticket:
            ticket.begin()
            await self._shared.confirmations.prepared()
            written = await self._shared.writes.delete(document_id, conditions)
            return await self._shared.confirmations.answer(self._mapping, 204, written.token, None, preferences)

    def _id(self, request: Request) -> str:
        return id_of(self._mapping, request.scope["raw_path"])

    async def _check_path(self, document_id: str) -> None:
        """Raise `Refused` for an id that no new document may have, unless others have made one."""
        try:
            check_new_id(document_id)
        except Refused:
            if await self._shared.reads.read(document_id) is None:
                raise

    async def _patch(self, document_id: str, body: bytes, conditions: Conditions) -> Written:
        patch = await off_loop(len(body), parse_json, body)

        async def change(current: bytes) -> bytes:
            size = len(body) + len(current)
            return await off_loop(size, patched_text, self._mapping, self._shared.model, current, patch, document_id)

        return await self._shared.writes.change(document_id, conditions, change)
