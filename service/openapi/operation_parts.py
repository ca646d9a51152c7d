"""What the operations of the OpenAPI document are made of: answers, problems, bodies, references."""

from collections.abc import Iterable
from typing import Any

from service.http import problems
from service.http.problems import MEDIA_TYPE, ProblemType
from service.openapi.fixed_parts import WRITTEN, Json

ANY = (problems.BAD_REQUEST, problems.INTERNAL)
"""Problems that every operation may be answered with."""


def problems_of(*kinds: ProblemType, reading: bool = False) -> Json:
    """An answer for each status, telling which types of problem it may be.

    Args:
        kinds: what the operation may be answered with.
        reading: whether it only reads; the titles say so.
    """
    answers: Json = {}
    for status in sorted({kind.status for kind in kinds}):
        here = dict.fromkeys(kind for kind in kinds if kind.status == status)
        headers = ["Retry-After"] if any(kind.retry_after for kind in here) else []
        headers += ["WWW-Authenticate"] if status in (401, 403) else []
        headers += ["Sync-Token"] if set(here) & {problems.REFUSED, problems.NOT_CONFIRMED} else []
        answers[str(status)] = {
            "description": "\n".join(
                f"- `{kind.uri}`: {(kind.to_readers if reading else kind).title}." for kind in here
            ),
            "headers": headers_of(*headers),
            "content": {MEDIA_TYPE: {"schema": ref("schemas", "Problem")}},
        }
    return answers


def answer(description: str, schema: Json, *headers: str) -> Json:
    """An answer with JSON of this schema, and these headers."""
    return {
        "description": description,
        "headers": headers_of(*headers),
        "content": {"application/json": {"schema": schema}},
    }


def accepted(*headers: str) -> Json:
    """The answer to a writer who doesn't wait, with these headers and those of every write."""
    description = "Written to Redis and queued; the client asked not to wait for MongoDB."
    return answer(description, ref("schemas", "Accepted"), *headers, *WRITTEN)


def body_of(schema: Json, media_types: Iterable[str], description: str, example: Any = None) -> Json:
    """The body that a request must have, as any of these media types."""
    shown = {} if example is None else {"example": example}
    content = {media_type: {"schema": schema} | shown for media_type in media_types}
    return {"required": True, "description": description, "content": content}


def headers_of(*names: str) -> Json:
    """The headers of these names, each described in the components."""
    return {name: ref("headers", name) for name in names}


def ref(kind: str, name: str) -> Json:
    """A reference to what the components hold of this kind by this name."""
    return {"$ref": f"#/components/{kind}/{name}"}
