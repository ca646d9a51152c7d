"""Ids in URLs: any string but a NUL, percent-encoded as UTF-8; of new ones, those whose paths others leave alone."""

import re
from urllib.parse import quote, unquote_to_bytes

from starlette.convertors import Convertor, register_url_convertor

from gears.contract.mapping import Mapping
from gears.errors import Refused
from service.http.problems import BAD_REQUEST, NOT_FOUND, Problem

FILES = ("swagger-ui.css", "swagger-ui-bundle.js", "favicon-32x32.png")
"""What is served below `/docs`."""

_BROKEN_ESCAPE = re.compile(rb"%(?![0-9A-Fa-f]{2})")


class _AnyText(Convertor[str]):
    """The rest of a path; Starlette's `path` ends at a line break."""

    regex = "(?s:.+)"

    def convert(self, value: str) -> str:
        return value

    def to_string(self, value: str) -> str:
        return value


register_url_convertor("any", _AnyText())


def id_of(mapping: Mapping, raw_path: bytes) -> str:
    """The id in a path: all that follows the resource's name, with slashes plain or encoded.

    Args:
        mapping: the resource's.
        raw_path: the path as it was sent, percent-encoded.

    Raises:
        Problem: the encoding is broken, or there is no slash after the resource's name.
        Refused: no document can have this id.
    """
    parts = raw_path.split(b"/", 2)
    if len(parts) < 3:
        raise Problem(NOT_FOUND, "there is no slash, sent plain, between the resource and the id")
    encoded = parts[2]
    if _BROKEN_ESCAPE.search(encoded):
        raise Problem(BAD_REQUEST, "the path holds a % that isn't followed by two hexadecimal digits; encode it as %25")
    try:
        document_id = unquote_to_bytes(encoded).decode()
    except UnicodeDecodeError:
        raise Problem(BAD_REQUEST, "the id in the path is not UTF-8") from None
    mapping.id_type.parse(document_id)
    return document_id


def path_of(mapping: Mapping, document_id: str) -> str:
    """The path of a document."""
    return f"/{mapping.prefix}/{quote(document_id, safe='')}"


def check_new_id(document_id: str) -> None:
    """Raise `Refused` if no new document may have this id: others take its path for another one.

    Browsers resolve `.` and `..`, also percent-encoded, and many clients and proxies drop a slash at the end.
    """
    if document_id in (".", "..") or document_id.endswith("/"):
        raise Refused(
            f"the id {document_id[-100:]!r} is '.' or '..', or ends in '/', which URLs don't keep; use another"
        )
