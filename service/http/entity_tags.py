"""Entity tags and the conditions that a request puts on them (RFC 9110, sections 8.8.3 and 13)."""

import re
from collections.abc import Iterable
from dataclasses import dataclass
from hashlib import blake2b

from starlette.datastructures import Headers

from service.http.problems import BAD_REQUEST, PRECONDITION_FAILED, Problem

ANY = "*"

_TAG = r'(?:W/)?"[\x21\x23-\x7e\x80-\xff]*"'
_OTHER_STATE = "If-Match names another state of the document; get it again"
_WEAKENED = (
    "If-Match names a weak tag, W/..., which never matches (RFC 9110, section 13.1.1). Tags are strong here; a proxy "
    "that compresses answers weakens them, such as nginx with gzip: send the tag without the W/"
)

_LIST = re.compile(rf"[ \t,]*{_TAG}(?:[ \t]*,[ \t,]*{_TAG})*[ \t,]*")


def etag_of(document: bytes) -> str:
    """The strong entity tag of these bytes, quotes included."""
    return f'"{blake2b(document, digest_size=16).hexdigest()}"'


@dataclass(frozen=True, slots=True)
class Conditions:
    """What a request demands of the document's present state.

    Args:
        if_match: tags of which one must be the document's own, or `ANY`; None without the header.
        if_none_match: opaque tags of which none may be, or `ANY`; None without the header.
        weakened: whether `If-Match` names weak tags as well, which never match.
    """

    if_match: frozenset[str] | None = None
    if_none_match: frozenset[str] | None = None
    weakened: bool = False

    @property
    def given(self) -> bool:
        """Whether there are any."""
        return self.if_match is not None or self.if_none_match is not None

    def not_modified(self, document: bytes) -> bool:
        """Whether `If-None-Match` names this document, so that a GET needn't send it."""
        return self.if_none_match is not None and bool(self.if_none_match & {ANY, etag_of(document)})

    def check_match(self, document: bytes | None) -> None:
        """Raise `PRECONDITION_FAILED` unless `If-Match` holds for this document; None for none."""
        if self.if_match is not None and (document is None or not self.if_match & {ANY, etag_of(document)}):
            raise Problem(PRECONDITION_FAILED, _WEAKENED if self.weakened else _OTHER_STATE)

    def check(self, document: bytes | None) -> None:
        """Raise `PRECONDITION_FAILED` unless all hold for this document, which is to be written."""
        self.check_match(document)
        if document is not None and self.not_modified(document):
            raise Problem(PRECONDITION_FAILED, "If-None-Match names the document's present state, or any")


def conditions_of(headers: Headers) -> Conditions:
    """The conditions of a request.

    Raises:
        Problem: a header is not a list of quoted entity tags.
    """
    if_match, if_none_match = _tags(headers, "If-Match"), _tags(headers, "If-None-Match")
    if if_match is None and if_none_match is None:
        return _NONE
    return Conditions(
        None if if_match is None else frozenset(tag for tag in if_match if not tag.startswith("W/")),
        None if if_none_match is None else frozenset(tag.removeprefix("W/") for tag in if_none_match),
        weakened=any(tag.startswith("W/") for tag in if_match or ()),
    )


_NONE = Conditions()


def _tags(headers: Headers, name: str) -> Iterable[str] | None:
    lines = headers.getlist(name)
    if not lines:
        return None
    text = ", ".join(lines)
    if text.strip() == ANY:
        return [ANY]
    if not _LIST.fullmatch(text):
        raise Problem(BAD_REQUEST, f'{name} must be * or a list of quoted entity tags such as "abc"')
    return re.findall(_TAG, text)
