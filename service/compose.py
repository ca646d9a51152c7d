"""From a request's body to the JSON text that is stored: checked, with its id, otherwise as the client sent it.

Pure functions; those that take as long as the body is large are called `*_text`.
"""

from typing import Any

from pydantic import ValidationError
from pydantic_core import to_json
from uuid_utils import uuid7

from gears.document import JsonObject, check_object, parse_object
from gears.errors import Refused
from gears.mapping import Mapping, check_id
from service.merge_patch import merge
from service.models import Model
from service.problems import INVALID_DOCUMENT, Problem


def new_text(mapping: Mapping, model: Model | None, body: bytes) -> tuple[str, bool, bytes]:
    """The document that a POST creates.

    Returns:
        Its id, whether the id was made here, and the JSON text to store.

    Raises:
        Refused, Problem: it can't be accepted.
    """
    document = parse_object(body)
    made = mapping.id_field not in document
    document_id = str(uuid7()) if made else _own_id(mapping, document)
    return document_id, made, _checked(model, _with_id(mapping, document_id, body, document))


def replacement_text(mapping: Mapping, model: Model | None, body: bytes, document_id: str) -> bytes:
    """The JSON text to store for a PUT.

    Raises:
        Refused, Problem: it can't be accepted.
    """
    document = parse_object(body)
    _check_same_id(mapping, document_id, document)
    return _checked(model, _with_id(mapping, document_id, body, document))


def patched_text(mapping: Mapping, model: Model | None, current: bytes, patch: Any, document_id: str) -> bytes:
    """The JSON text to store for a PATCH of `current`.

    Raises:
        Refused, Problem: the result can't be accepted.
    """
    document = merge(parse_object(current), patch)
    if not isinstance(document, dict):
        raise Refused("the patch would replace the document by something that is no JSON object")
    if isinstance(patch, dict) and mapping.id_field in patch:
        _check_same_id(mapping, document_id, patch)
    check_object(document)
    return _checked(model, _with_id(mapping, document_id, to_json(document), document))


def _own_id(mapping: Mapping, document: JsonObject) -> str:
    document_id = document[mapping.id_field]
    if not isinstance(document_id, str):
        raise Refused(f"the id in the field {mapping.id_field!r} must be a string")
    check_id(document_id)
    return document_id


def _check_same_id(mapping: Mapping, document_id: str, document: JsonObject) -> None:
    if mapping.id_field in document and document[mapping.id_field] != document_id:
        raise Refused(
            f"the field {mapping.id_field!r} differs from the id in the path; leave it out or make them equal"
        )


def _with_id(mapping: Mapping, document_id: str, text: bytes, document: JsonObject) -> bytes:
    """The text with the id as first field, if the document lacks it."""
    if mapping.id_field in document:
        return text
    separator = b"," if document else b""
    return b"{" + to_json(mapping.id_field) + b":" + to_json(document_id) + separator + text.lstrip()[1:]


def _checked(model: Model | None, text: bytes) -> bytes:
    if model is not None:
        try:
            model.model_validate_json(text)
        except ValidationError as error:
            found = error.errors(include_url=False, include_context=False, include_input=False)
            raise Problem(
                INVALID_DOCUMENT,
                f"the document doesn't fit the model {model.__name__}",
                errors=[{"field": ".".join(map(str, each["loc"])), "message": each["msg"]} for each in found],
            ) from None
    return text
