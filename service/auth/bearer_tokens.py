"""Bearer tokens (RFC 6750): which there are, what each may do, and when there must be some."""

import hmac
import re
from collections.abc import Iterable
from dataclasses import dataclass
from enum import StrEnum
from hashlib import sha256
from ipaddress import ip_address
from pathlib import Path

from gears.errors import ConfigError
from gears.process.settings import Settings

MIN_LENGTH = 16
"""Characters that a token must have at least; `openssl rand -hex 32` makes 64."""

_TOKEN = re.compile(r"[A-Za-z0-9._~+/-]+=*")
_REMEDY = "write scope:token, such as read:TOKEN or write+admin:TOKEN, with a token made by: openssl rand -hex 32"


class Scope(StrEnum):
    """What a token may do."""

    READ = "read"
    """Read documents, and ask whether a write is committed."""
    WRITE = "write"
    """Write documents, and read them: writes are answered with them."""
    ADMIN = "admin"
    """Look at `/sync`, `/metrics` and the reasons in `/readyz`."""


@dataclass(frozen=True, slots=True)
class _Known:
    digest: bytes
    scopes: frozenset[Scope]


class Tokens:
    """The tokens that are taken, kept as hashes."""

    def __init__(self, known: Iterable[_Known]) -> None:
        self._known = tuple(known)

    def scopes(self, token: str) -> frozenset[Scope]:
        """What this token may do, none for an unknown one; takes as long for any."""
        digest = _digest(token)
        found: frozenset[Scope] = frozenset()
        for known in self._known:
            if hmac.compare_digest(known.digest, digest):
                found |= known.scopes
        return found


def load_tokens(settings: Settings) -> Tokens | None:
    """The tokens of `WT_TOKENS` and `WT_TOKENS_FILE`; None when neither is set.

    Raises:
        ConfigError: the file can't be read or holds none, or an entry can't be used.
    """
    known = _parse(settings.tokens.get_secret_value(), "WT_TOKENS")
    if settings.tokens_file:
        try:
            text = Path(settings.tokens_file).read_text("utf-8")
        except (OSError, UnicodeDecodeError) as error:
            raise ConfigError(f"WT_TOKENS_FILE: {settings.tokens_file} can't be read: {error}") from error
        in_file = _parse(text, "WT_TOKENS_FILE")
        if not in_file:
            raise ConfigError(f"WT_TOKENS_FILE: {settings.tokens_file} holds no token; {_REMEDY}")
        known += in_file
    return Tokens(known) if known else None


def check_exposed(settings: Settings, host: str) -> None:
    """Raise `ConfigError` if anybody on the network could use the API without a token.

    Args:
        settings: which tokens there are.
        host: address or name that the API would listen on.
    """
    if load_tokens(settings) is None and not _is_loopback(host):
        raise ConfigError(
            f"WT_TOKENS is not set, and on {host or 'all addresses'} others could read and write everything; set "
            "WT_TOKENS=write+admin:$(openssl rand -hex 32), or WT_TOKENS_FILE, or listen on 127.0.0.1"
        )


def _is_loopback(host: str) -> bool:
    try:
        return ip_address(host).is_loopback
    except ValueError:
        return host == "localhost"


def _parse(text: str, name: str) -> list[_Known]:
    """Entries `scope+scope:token`, separated by commas or line ends; lines that begin with # say nothing."""
    lines = (line for line in text.splitlines() if not line.lstrip().startswith("#"))
    entries = (entry.strip() for line in lines for entry in line.split(","))
    return [_parse_entry(entry, f"{name}: entry {n}") for n, entry in enumerate(filter(None, entries), 1)]


def _parse_entry(entry: str, where: str) -> _Known:
    """One entry; what is said of it doesn't show it."""
    names, separator, token = entry.partition(":")
    try:
        scopes = {Scope(name.strip()) for name in names.split("+")} if separator else set()
    except ValueError:
        scopes = set()
    if not scopes:
        raise ConfigError(f"{where} doesn't begin with scopes of {', '.join(Scope)}; {_REMEDY}")
    token = token.strip()
    if len(token) < MIN_LENGTH or not _TOKEN.fullmatch(token):
        raise ConfigError(f"{where} needs a token of {MIN_LENGTH} or more letters, digits and - . _ ~ + /; {_REMEDY}")
    if Scope.WRITE in scopes:
        scopes.add(Scope.READ)
    return _Known(_digest(token), frozenset(scopes))


def _digest(token: str) -> bytes:
    return sha256(token.encode("utf-8", "surrogateescape")).digest()
