"""Problem details (RFC 9457): every error that the API answers with, listed once."""

from collections.abc import Mapping
from dataclasses import dataclass, replace
from http import HTTPStatus
from typing import Any

from pydantic_core import to_json
from starlette.responses import Response

from gears import errors

MEDIA_TYPE = "application/problem+json"

ANSWERED = "writethrough.problem"
"""Set in the ASGI scope of a request that was answered with a problem: its type's name."""


@dataclass(frozen=True, slots=True)
class ProblemType:
    """A kind of problem that clients can tell by its URI.

    Args:
        name: last part of the URI.
        status: HTTP status.
        title: the same words for every problem of this type.
        retry_after: seconds after which trying again makes sense; None where it doesn't.
    """

    name: str
    status: int
    title: str
    retry_after: int | None = None

    @property
    def uri(self) -> str:
        """The value of `type`."""
        return f"urn:writethrough:problem:{self.name}"

    @property
    def to_readers(self) -> "ProblemType":
        """The same, without a word on writes."""
        return replace(self, title=self.title.removesuffix(_NOTHING_WRITTEN))


_NOTHING_WRITTEN = "; nothing was written"

BAD_REQUEST = ProblemType("bad-request", 400, "The request can't be understood")
MALFORMED_JSON = ProblemType("malformed-json", 400, "The body is not JSON")
UNAUTHORIZED = ProblemType("unauthorized", 401, "A token is needed")
FORBIDDEN = ProblemType("forbidden", 403, "The token may not do this")
CROSS_SITE = ProblemType("cross-site", 403, "Pages of other origins may not do this")
NOT_FOUND = ProblemType("not-found", 404, "Not found")
METHOD_NOT_ALLOWED = ProblemType("method-not-allowed", 405, "This resource doesn't have that method")
REQUEST_TIMEOUT = ProblemType("request-timeout", 408, "The request was sent too slowly")
ALREADY_EXISTS = ProblemType("already-exists", 409, "A document with this id exists")
FOREIGN_KEY = ProblemType("foreign-key", 409, "The Redis key holds something that isn't a JSON document")
IN_PROGRESS = ProblemType("in-progress", 409, "A request with this Idempotency-Key is under way", 1)
PRECONDITION_FAILED = ProblemType("precondition-failed", 412, "The document is not in the state that was asked for")
TOO_LARGE = ProblemType("too-large", 413, "The body is too large")
UNSUPPORTED_MEDIA_TYPE = ProblemType("unsupported-media-type", 415, "The body is of a type that isn't accepted here")
INVALID_DOCUMENT = ProblemType("invalid-document", 422, "The document can't be accepted")
REFUSED = ProblemType("refused", 422, "MongoDB refused the document; nothing was changed")
KEY_REUSED = ProblemType("idempotency-key-reused", 422, "The Idempotency-Key was sent with another body before")
HEAD_TOO_LARGE = ProblemType("head-too-large", 431, "The request's head is too large")
INTERNAL = ProblemType("internal", 500, "Something went wrong here; it has been logged")
REDIS_UNAVAILABLE = ProblemType("redis-unavailable", 503, "Redis can't be reached; nothing was written", 1)
REDIS_REFUSED = ProblemType("redis-refused", 503, "Redis refused the command; nothing was written", 5)
MONGO_UNAVAILABLE = ProblemType("mongo-unavailable", 503, "MongoDB can't be reached; nothing was written", 2)
REDIS_UNCHECKED = ProblemType("redis-unchecked", 503, "Redis may have forgotten something; nothing was written", 1)
CAPTURE_MISSING = ProblemType("capture-missing", 503, "Writes aren't captured now; nothing was written", 5)
BACKLOG_FULL = ProblemType("backlog-full", 503, "Too many writes wait for MongoDB; nothing was written", 2)
OVERLOADED = ProblemType("overloaded", 503, "Too many writes are in flight here; nothing was written", 1)
CONTENDED = ProblemType("contended", 503, "Others keep changing this document; nothing was written", 1)
TOO_MANY_VIEWERS = ProblemType("too-many-viewers", 503, "Too many look at the live page", 10)
NOT_READY = ProblemType("not-ready", 503, "Not ready", 1)
SHUTTING_DOWN = ProblemType("shutting-down", 503, "This process is shutting down", 1)
NOT_CONFIRMED = ProblemType("not-confirmed", 504, "Written to Redis and queued, not yet confirmed by MongoDB")
OUTCOME_UNKNOWN = ProblemType("outcome-unknown", 504, "Nobody knows whether the write was made")

TYPES = tuple(value for value in globals().values() if isinstance(value, ProblemType))
"""All of them, in the order above."""

_BY_ERROR: dict[type[Exception], ProblemType] = {
    errors.MalformedJson: MALFORMED_JSON,
    errors.Refused: INVALID_DOCUMENT,
    errors.RedisAway: REDIS_UNAVAILABLE,
    errors.RedisRefused: REDIS_REFUSED,
    errors.CaptureMissing: CAPTURE_MISSING,
    errors.BacklogFull: BACKLOG_FULL,
    errors.Unchecked: REDIS_UNCHECKED,
    errors.ForeignKey: FOREIGN_KEY,
    errors.OutcomeUnknown: OUTCOME_UNKNOWN,
}


class Problem(errors.WritethroughError):
    """An answer that is a problem.

    Args:
        kind: its type.
        detail: what is wrong with this request, and what to do about it.
        headers: headers of the answer beside the usual ones.
        members: further members of the JSON object.
    """

    def __init__(
        self, kind: ProblemType, detail: str, *, headers: Mapping[str, str] | None = None, **members: Any
    ) -> None:
        super().__init__(detail)
        self.kind = kind
        self.detail = detail
        self.headers = dict(headers or {})
        self.members = members

    def content(self, *, reading: bool = False) -> dict[str, Any]:
        """The JSON object; see `response`."""
        kind = self.kind.to_readers if reading else self.kind
        return _object(kind, self.detail) | self.members

    def response(self, *, reading: bool = False) -> Response:
        """The answer; to a request that only reads, nothing is said of writes."""
        retry = {} if self.kind.retry_after is None else {"Retry-After": str(self.kind.retry_after)}
        content = to_json(self.content(reading=reading), fallback=str)
        return Response(content, self.kind.status, headers=retry | self.headers, media_type=MEDIA_TYPE)


ERRORS: tuple[type[Exception], ...] = (Problem, *_BY_ERROR)
"""What `problem_of` knows."""


def problem_json(kind: ProblemType, detail: str, **members: Any) -> bytes:
    """The body of a problem."""
    return to_json(_object(kind, detail) | members, fallback=str)


def _object(kind: ProblemType, detail: str) -> dict[str, Any]:
    return {"type": kind.uri, "title": kind.title, "status": kind.status, "detail": detail}


def problem_of(error: Exception) -> Problem | None:
    """The problem that one of our own errors stands for; None for all others."""
    if isinstance(error, Problem):
        return error
    for kind in type(error).__mro__:
        if problem_type := _BY_ERROR.get(kind):
            return Problem(problem_type, str(error) or problem_type.to_readers.title)
    return None


def problem_of_status(status: int, detail: str, headers: Mapping[str, str] | None = None) -> Problem:
    """The problem for an HTTP status that a library chose."""
    known = {kind.status: kind for kind in (BAD_REQUEST, NOT_FOUND, METHOD_NOT_ALLOWED, TOO_LARGE, INTERNAL)}
    kind = known.get(status) or ProblemType("http", status, HTTPStatus(status).phrase)
    return Problem(kind, detail, headers=headers)
