"""From a request's body to the JSON text that is stored: checked, with its id, otherwise as the client sent it.

Pure functions; those that take as long as the body is large are called `*_text`.
"""

from typing import Any

from pydantic import ValidationError
from pydantic_core import to_json

from gears.contract.mapping import Mapping
from gears.contract.mongo_form import LARGE, measured, with_id
from gears.documents.json_bson import same
from gears.documents.validate import JsonObject, check_object, may_hold_specials, parse_json, parse_object
from gears.errors import Refused
from service.documents.merge_patch import merge
from service.http.paths import check_new_id
from service.http.problems import INVALID_DOCUMENT, Problem
from service.models import Model, unwrapped


def new_text(mapping: Mapping, model: Model | None, body: bytes, seed: str | None = None) -> tuple[str, bool, bytes]:
    """The document that a POST creates.

    Args:
        mapping: its mapping.
        model: what it must look like.
        body: what was sent.
        seed: what its id is derived from, if it brings none; None for one at random.

    Returns:
        Its id, whether the id was made here, and the JSON text to store.

    Raises:
        Refused, Problem: it can't be accepted.
    """
    document = _parsed(mapping, body)
    made = mapping.id_field not in document
    document_id = mapping.id_type.new(seed) if made else _own_id(mapping, document)
    return document_id, made, _checked(model, _with_id(mapping, document_id, body, document))


def replacement_text(mapping: Mapping, model: Model | None, body: bytes, document_id: str) -> bytes:
    """The JSON text to store for a PUT.

    Raises:
        Refused, Problem: it can't be accepted.
    """
    document = _parsed(mapping, body)
    _check_same_id(mapping, document_id, document)
    return _checked(model, _with_id(mapping, document_id, body, document))


def patched_text(mapping: Mapping, model: Model | None, current: bytes, patch: Any, document_id: str) -> bytes:
    """The JSON text to store for a PATCH of `current`.

    Raises:
        Refused, Problem: the result can't be accepted.
    """
    document = merge(parse_object(current, mapping.reserved), patch)
    if not isinstance(document, dict):
        raise Refused("the patch would replace the document by something that is no JSON object")
    if isinstance(patch, dict) and mapping.id_field in patch:
        _check_same_id(mapping, document_id, patch)
    check_object(document, mapping.reserved)
    text = to_json(with_id(mapping, document_id, document))
    if len(text) >= LARGE:
        measured(mapping, text)
    return _checked(model, text)


def same_text(one: bytes, other: bytes) -> bool:
    """Whether two JSON texts are the same document."""
    return same(parse_json(one), parse_json(other))


def _parsed(mapping: Mapping, body: bytes) -> JsonObject:
    """The document; of a large one only its names and its id, since a tree of it may take fifty times its size."""
    return parse_object(body, mapping.reserved) if len(body) < LARGE else measured(mapping, body)


def _own_id(mapping: Mapping, document: JsonObject) -> str:
    found = document[mapping.id_field]
    document_id = mapping.id_type.text_in(found)
    if document_id is None:
        example = mapping.id_type.json_text(mapping.id_type.example).decode()
        raise Refused(f"the field {mapping.id_field!r} holds {_shown(found)}, which is no id here; one is {example}")
    check_new_id(document_id)
    return document_id


def _check_same_id(mapping: Mapping, document_id: str, document: JsonObject) -> None:
    expected = mapping.id_type.json(document_id)
    if mapping.id_field in document and not same(document[mapping.id_field], expected):
        raise Refused(
            f"the field {mapping.id_field!r} holds {_shown(document[mapping.id_field])}, but the path says "
            f"{_shown(expected)}; leave the field out or make them equal"
        )


def _shown(value: Any) -> str:
    return to_json(value).decode()[:100]


def _with_id(mapping: Mapping, document_id: str, text: bytes, document: JsonObject) -> bytes:
    """The text with the id as first field, if the document lacks it."""
    if mapping.id_field in document:
        return text
    separator = b"," if document else b""
    own = to_json(mapping.id_field) + b":" + mapping.id_type.json_text(document_id)
    return b"{" + own + separator + text.lstrip()[1:]


def _checked(model: Model | None, text: bytes) -> bytes:
    if model is not None:
        error = _misfit(model, text)
        if error is not None and may_hold_specials(text):
            error = _misfit(model, to_json(unwrapped(parse_json(text))))
        if error is not None:
            found = error.errors(include_url=False, include_context=False, include_input=False)
            raise Problem(
                INVALID_DOCUMENT,
                f"the document doesn't fit the model {model.__name__}",
                errors=[{"field": ".".join(map(str, each["loc"])), "message": each["msg"]} for each in found],
            )
    return text


def _misfit(model: Model, text: bytes) -> ValidationError | None:
    try:
        model.model_validate_json(text)
    except ValidationError as error:
        return error
    return None
