"""`Idempotency-Key` on POST: what is sent again makes no second document, and gets the same answer.

Source: https://datatracker.ietf.org/doc/html/draft-ietf-httpapi-idempotency-key-header

Redis keeps what was made, for a day. Where it has forgotten that, the id of the document is still the same one, since
it is derived from the key: so what exists is found to be what is sent, or to be something else.
"""

import re
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager, suppress
from dataclasses import dataclass
from hashlib import blake2b

import anyio
from pydantic_core import from_json, to_json
from redis.exceptions import ResponseError
from starlette.datastructures import Headers

from gears.contract.redis_names import Names
from gears.contract.write_tokens import Token
from gears.errors import OutcomeUnknown, RedisAway, RedisRefused
from gears.in_redis.client import AWAY, Redis, RedisError, send_once
from service.http.problems import BAD_REQUEST, IN_PROGRESS, KEY_REUSED, Problem

KEPT_SECONDS = 24 * 3600
"""How long it is known what was made by a key."""

MAX_KEY = 255
"""Most characters of a key."""

_BUSY_SECONDS, _RENEW_SECONDS = 3.0, 1.0
"""How long a key counts as under way after its process has died, and how often it says that it hasn't."""

_STRING = re.compile(r'"((?:[ !#-\[\]-~]|\\["\\])*)"(?:\s*;.*)?')
"""https://www.rfc-editor.org/rfc/rfc8941#section-3.3.3, and parameters, which mean nothing here."""

_PLAIN = re.compile(r"[!#-+\--:<-~]+")
"""Without the quotes, as many libraries send it."""


def idempotency_key(headers: Headers) -> str | None:
    """The key of a request; None without one.

    Raises:
        Problem: it can't be used.
    """
    lines = headers.getlist("Idempotency-Key")
    if not lines:
        return None
    text = lines[0].strip()
    if found := _STRING.fullmatch(text):
        key = re.sub(r"\\(.)", r"\1", found[1])
    else:
        key = text if _PLAIN.fullmatch(text) else ""
    if len(lines) > 1 or not 0 < len(key) <= MAX_KEY:
        raise Problem(
            BAD_REQUEST, f'Idempotency-Key must be one string of 1 to {MAX_KEY} ASCII characters, such as "8e03978e"'
        )
    return key


@dataclass(frozen=True, slots=True)
class Made:
    """The document that a request has made.

    Args:
        token: of its write.
        document: JSON text, as it was then.
    """

    token: Token
    document: bytes


class Attempt:
    """A request with a key that is under way, with what it, or one before it, has made."""

    def __init__(self, redis: Redis, name: str, fingerprint: str, made: Made | None) -> None:
        self._redis = redis
        self._name = name
        self._fingerprint = fingerprint
        self.made = made

    async def remember(self, made: Made) -> None:
        """Keep what was made; where Redis doesn't, the document will be found by its id."""
        self.made = made
        with suppress(RedisAway, OutcomeUnknown, ResponseError):
            text = _encode(self._fingerprint, made)
            await send_once(self._redis, "SET", self._name, text, "EX", KEPT_SECONDS)

    async def forget(self) -> None:
        """Nothing was made: the key may be used again."""
        self.made = None
        with suppress(RedisAway, OutcomeUnknown, ResponseError):
            await send_once(self._redis, "DEL", self._name)


class IdempotencyKeys:
    """The keys that are in use; `run` must run meanwhile.

    Args:
        redis: where they are kept.
    """

    def __init__(self, redis: Redis) -> None:
        self._redis = redis
        self._busy: set[str] = set()

    @asynccontextmanager
    async def attempt(self, prefix: str, key: str, body: bytes) -> AsyncIterator[Attempt]:
        """A request, for the time of a block; nobody else makes anything by its key meanwhile.

        Args:
            prefix: of which mapping.
            key: the request's.
            body: what was sent.

        Raises:
            Problem: the key is under way, or was sent with another body.
            RedisAway, RedisRefused: Redis can't be asked.
        """
        name = Names(prefix).idempotency + blake2b(key.encode(), digest_size=16).hexdigest()
        busy, fingerprint = f"{name}:busy", blake2b(body, digest_size=16).hexdigest()
        free, kept = await self._begin(name, busy, fingerprint)
        try:
            its_fingerprint, made = _decode(kept)
            if its_fingerprint != fingerprint:
                raise Problem(KEY_REUSED, "this Idempotency-Key was sent with another body before; use a new one")
            if not free:
                raise Problem(IN_PROGRESS, "a request with this Idempotency-Key is under way; send it again later")
            self._busy.add(busy)
            yield Attempt(self._redis, name, fingerprint, made)
        finally:
            self._busy.discard(busy)
            if free:
                with anyio.CancelScope(shield=True), suppress(RedisAway, OutcomeUnknown, ResponseError):
                    await send_once(self._redis, "DEL", busy)

    async def run(self) -> None:
        """Say of the keys that are under way that they still are, until cancelled."""
        while True:
            await anyio.sleep(_RENEW_SECONDS)
            for busy in list(self._busy):
                with suppress(RedisAway, OutcomeUnknown, ResponseError):
                    await send_once(self._redis, "SET", busy, b"1", "XX", "PX", int(_BUSY_SECONDS * 1000))

    async def _begin(self, name: str, busy: str, fingerprint: str) -> tuple[bool, bytes]:
        """Whether nobody else is at it, and what is kept, which may have been nothing until now."""
        try:
            async with self._redis.pipeline(transaction=True) as at_once:
                at_once.set(busy, 1, nx=True, px=int(_BUSY_SECONDS * 1000))
                at_once.set(name, _encode(fingerprint, None), nx=True, ex=KEPT_SECONDS)
                at_once.get(name)
                free, _, kept = await at_once.execute()
        except AWAY as error:
            raise RedisAway(str(error)) from error
        except RedisError as error:
            raise RedisRefused(str(error)) from error
        return bool(free), kept


def _encode(fingerprint: str, made: Made | None) -> bytes:
    """A line that says of which body, and by which write, and the document."""
    if made is None:
        return to_json([fingerprint])
    return to_json([fingerprint, str(made.token)]) + b"\n" + made.document


def _decode(kept: bytes) -> tuple[str, Made | None]:
    head, _, document = kept.partition(b"\n")
    fingerprint, *token = from_json(head)
    return fingerprint, Made(Token.parse(token[0]), document) if token else None
