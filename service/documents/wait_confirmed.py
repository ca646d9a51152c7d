"""Waiting until MongoDB has confirmed a write, and what its writer is answered then."""

import asyncio
from collections.abc import Mapping as Dict
from collections.abc import Sequence
from time import perf_counter

from anyio import move_on_after
from pydantic_core import to_json
from starlette.responses import Response

from gears.contract.mapping import Mapping
from gears.contract.write_tokens import Token
from gears.errors import OutcomeUnknown, Refused
from gears.process.failpoint import reached
from gears.progress.watermark import Watermarks
from service.http.entity_tags import etag_of
from service.http.prefer_header import Preferences
from service.http.problems import NOT_CONFIRMED, OUTCOME_UNKNOWN, REFUSED, Problem, ProblemType
from service.watch.metrics import Metrics

_FOLLOWING_SECONDS = 0.5
"""How long a write is put off while commits aren't followed; a subscription that was lost is back by then."""

_STOPPING_SECONDS = 1.0
"""How much longer writes wait once the process is told to end."""


class Confirmations:
    """The writes of this process that wait.

    Args:
        watermarks: tell how far each mapping is committed.
        metrics: told how long each write waited.
        timeout: seconds that a write waits unless it says otherwise.
    """

    def __init__(self, watermarks: Watermarks, metrics: Metrics, timeout: float) -> None:
        self._watermarks = watermarks
        self._metrics = metrics
        self._timeout = timeout
        self._deadlines: set[asyncio.Timeout] = set()
        self.stopping = False
        """Whether the process is told to end."""

    async def prepared(self) -> None:
        """Put a write off for a moment while a restarted Redis isn't known yet, lest it be in doubt for nothing."""
        if not self._watermarks.are_followed:
            with move_on_after(_FOLLOWING_SECONDS):
                await self._watermarks.followed()

    async def answer(
        self,
        mapping: Mapping,
        status: int,
        token: Token,
        document: bytes | None,
        preferences: Preferences,
        headers: Dict[str, str] | None = None,
        *,
        committed: bool = False,
    ) -> Response:
        """The answer to a write: after its confirmation, or 202 for a writer who doesn't wait for that.

        Args:
            mapping: whose write.
            status: the answer's, once the write is confirmed.
            token: the write's.
            document: what was stored; None for a delete.
            preferences: the writer's.
            headers: what to say beside.
            committed: whether that is known already.

        Raises:
            Problem: see `confirmed`.
        """
        reached("written to Redis")
        confirmed = committed or await self.confirmed(mapping, token, preferences)
        reached("confirmed")
        tag = {} if document is None else {"ETag": etag_of(document)}
        every = {"Sync-Token": str(token)} | tag | dict(headers or {}) | preferences.applied(accepted=not confirmed)
        if not confirmed:
            said = to_json({"token": str(token), "sync": status_path(mapping, token)})
            return Response(said, 202, headers=every, media_type="application/json")
        if document is None:
            return Response(status_code=status, headers=every)
        return Response(document, status, headers=every, media_type="application/json")

    async def confirmed(self, mapping: Mapping, token: Token, preferences: Preferences) -> bool:
        """Wait for the confirmation of a write; False if the writer prefers not to wait longer.

        Args:
            mapping: whose write.
            token: the write's.
            preferences: the writer's.

        Raises:
            Problem: the document was refused, isn't confirmed in time, or may have been lost by Redis meanwhile.
        """
        [outcome] = await self.all_confirmed(mapping, [token], preferences)
        if isinstance(outcome, Problem):
            raise outcome
        return outcome

    async def all_confirmed(
        self, mapping: Mapping, tokens: Sequence[Token], preferences: Preferences
    ) -> list[bool | Problem]:
        """Wait for the confirmation of several writes at a time: what `confirmed` returns or raises, of each."""
        started = perf_counter()
        watermark = self._watermarks[mapping.prefix]
        outcomes: list[bool | Problem] = []
        deadline = asyncio.timeout(self._patience(preferences))
        self._deadlines.add(deadline)
        try:
            async with deadline:
                for token in tokens:
                    outcomes.append(await self._outcome(mapping, token, preferences))
        except TimeoutError:
            for token in tokens[len(outcomes) :]:
                if watermark.has_reached(token):
                    outcomes.append(await self._outcome(mapping, token, preferences))
                else:
                    waits = not preferences.respond_async
                    outcomes.append(self._not_confirmed(mapping, token, preferences) if waits else False)
        finally:
            self._deadlines.discard(deadline)
            for _ in tokens:
                self._metrics.commit_wait(mapping.prefix, perf_counter() - started)
        return outcomes

    async def _outcome(self, mapping: Mapping, token: Token, preferences: Preferences) -> bool | Problem:
        try:
            await self._watermarks[mapping.prefix].reached(token)
        except Refused as refusal:
            headers = {"Sync-Token": str(token)} | preferences.applied(accepted=False)
            return Problem(REFUSED, refusal.reason, headers=headers)
        except OutcomeUnknown as error:
            return _unsettled(OUTCOME_UNKNOWN, f"{error};", "what became of it", mapping, token, preferences)
        return True

    def stop(self) -> None:
        """Let what waits wait only a little longer."""
        self.stopping = True
        soon = asyncio.get_running_loop().time() + _STOPPING_SECONDS
        for deadline in self._deadlines:
            when = deadline.when()
            if when is not None and when > soon:
                deadline.reschedule(soon)

    def _patience(self, preferences: Preferences) -> float:
        if preferences.wait is None:
            seconds = 0.0 if preferences.respond_async else self._timeout
        else:
            seconds = preferences.wait
        return min(seconds, _STOPPING_SECONDS) if self.stopping else seconds

    def _not_confirmed(self, mapping: Mapping, token: Token, preferences: Preferences) -> Problem:
        reason = "MongoDB has not confirmed the write in time; it stays queued, and"
        return _unsettled(NOT_CONFIRMED, reason, "when it is committed", mapping, token, preferences)


def status_path(mapping: Mapping, token: Token) -> str:
    """Where to ask whether a write is committed."""
    return f"/sync/{token}?mapping={mapping.prefix}"


def _unsettled(
    kind: ProblemType, reason: str, what: str, mapping: Mapping, token: Token, preferences: Preferences
) -> Problem:
    path = status_path(mapping, token)
    return Problem(
        kind,
        f"{reason} GET {path} tells {what}",
        headers={"Sync-Token": str(token)} | preferences.applied(accepted=False),
        token=str(token),
        sync=path,
    )
