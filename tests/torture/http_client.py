"""A client of the API: writes with and without conditions, reads, lists, and looks again after acknowledgements."""

from collections import deque
from collections.abc import Iterator
from typing import Any

import anyio
import httpx
from pymongo.errors import PyMongoError

from tests.torture import documents
from tests.torture.clients import Recorder, Transport
from tests.torture.history import Outcome, Side, Write
from tests.torture.schedule import KEYS, Step
from tests.torture.system import PREFIX, System

_PATIENCE = 6.0
"""Seconds until a client gives up: longer than the API takes when it can answer at all."""

_PENDING = 20
"""Most tokens that a client asks after."""

_STATUS = {
    **dict.fromkeys((200, 201, 204), Outcome.ACKNOWLEDGED),
    202: Outcome.QUEUED,
    **dict.fromkeys((404, 409, 412, 422, 503), Outcome.NOTHING),
    504: Outcome.UNKNOWN,
}

_PROBLEM = {
    "urn:writethrough:problem:refused": Outcome.REFUSED,
    "urn:writethrough:problem:not-confirmed": Outcome.QUEUED,
}


class HttpClient:
    """One client.

    Args:
        name: of the client.
        system: the system.
        recorder: the history.
        first: the API it uses; the other one is asked for second looks.
    """

    def __init__(self, name: str, system: System, recorder: Recorder, first: int) -> None:
        self.name = name
        self._system = system
        self._recorder = recorder
        urls = list(system.apis.values())
        self._clients = [
            httpx.AsyncClient(transport=Transport(), base_url=url, timeout=_PATIENCE)
            for url in (urls[first], urls[1 - first])
        ]
        self._pending: deque[Write] = deque(maxlen=_PENDING)

    async def run(self, steps: Iterator[Step], pause: float) -> None:
        """Do these steps until cancelled, one in so many seconds at most."""
        try:
            for step in steps:
                await anyio.sleep(pause)
                write = await self._do(step)
                if write is not None and write.outcome is Outcome.ACKNOWLEDGED:
                    await self._look(write, step.look)
                elif self._pending:
                    await self._ask(self._pending.popleft())
        finally:
            with anyio.CancelScope(shield=True):
                for client in self._clients:
                    await client.aclose()

    async def _do(self, step: Step) -> Write | None:
        match step.kind:
            case "GET":
                await self.get(step.key)
                return None
            case "LIST":
                await self._list()
                return None
            case "DELETE":
                return await self._write(step, "DELETE", None)
            case "PUT If-Match":
                return await self._replace(step)
        tag = self._recorder.tag(self.name)
        match step.kind:
            case "PUT":
                return await self._write(step, "PUT", documents.document(tag))
            case "PUT async":
                return await self._write(step, "PUT", documents.document(tag), {"Prefer": "respond-async"})
            case "PUT invalid":
                return await self._write(step, "PUT", documents.document(tag) | {"n": 2**63})
            case "POST":
                return await self._write(step, "POST", documents.document(tag) | self._system.own_id(step.key))
            case "PATCH":
                return await self._write(step, "PATCH", {"v": tag})
        raise AssertionError(f"no such operation: {step.kind}")

    async def _replace(self, step: Step) -> Write | None:
        found = await self.get(step.key)
        if found is None or found.status_code != 200:
            return None
        condition = {"If-Match": found.headers["ETag"]}
        document = documents.document(self._recorder.tag(self.name))
        return await self._write(step, "PUT", document, condition, replaced=documents.value_in(found.json()))

    async def get(self, key: str, *, other: bool = False) -> httpx.Response | None:
        """Read a document, through this client's API or the other one."""
        start = self._recorder.now()
        try:
            answer = await self._clients[other].get(f"/{PREFIX}/{key}")
        except httpx.HTTPError:
            return None
        if answer.status_code in (200, 404):
            value = documents.value_in(answer.json()) if answer.status_code == 200 else None
            self._recorder.seen(self.name, "GET", key, value, Side.REDIS, start)
        elif answer.status_code != 503:
            self._strange(self._recorder.begin(self.name, "GET", key), answer)
        return answer

    async def _list(self) -> None:
        start = self._recorder.now()
        try:
            answer = await self._clients[0].get(f"/{PREFIX}", params={"limit": 1000})
        except httpx.HTTPError:
            return
        if answer.status_code == 200:
            items = answer.json()["items"]
            found = {self._system.id_in(document): documents.value_in(document) for document in items}
            for key in KEYS:
                self._recorder.seen(self.name, "GET list", key, found.get(key), Side.MONGO, start)

    async def _write(
        self,
        step: Step,
        method: str,
        document: dict[str, Any] | None,
        headers: dict[str, str] | None = None,
        *,
        replaced: str | None = None,
    ) -> Write:
        value = None if document is None else document["v"]
        write = self._recorder.begin(self.name, step.kind, step.key, value, replaced=replaced)
        path = f"/{PREFIX}" if method == "POST" else f"/{PREFIX}/{step.key}"
        content_type = {"Content-Type": "application/merge-patch+json"} if method == "PATCH" else {}
        try:
            answer = await self._clients[0].request(method, path, json=document, headers=content_type | (headers or {}))
        except httpx.ConnectError:
            self._recorder.end(write, Outcome.NOTHING, "no connection")
        except httpx.HTTPError as error:
            self._recorder.end(write, Outcome.UNKNOWN, repr(error))
        else:
            self._conclude(write, answer)
        return write

    def _conclude(self, write: Write, answer: httpx.Response) -> None:
        problem = answer.json().get("type", "") if answer.status_code >= 400 else ""
        outcome = _PROBLEM.get(problem) or _STATUS.get(answer.status_code)
        detail = f"{answer.status_code} {problem.rpartition(':')[2]}".strip()
        if outcome is None:
            self._strange(write, answer)
            return
        self._recorder.end(write, outcome, detail, token=answer.headers.get("Sync-Token", ""))
        if outcome is Outcome.QUEUED:
            self._pending.append(write)
        # What the answer says of the state that the write found.
        if answer.status_code == 404 or (write.kind == "POST" and outcome is Outcome.ACKNOWLEDGED):
            self._recorder.seen(self.name, f"implied by {write.kind}", write.key, None, Side.REDIS, write.start)
        if write.replaced is not None and outcome is Outcome.ACKNOWLEDGED:
            self._recorder.seen(
                self.name, f"implied by {write.kind}", write.key, write.replaced, Side.REDIS, write.start
            )

    def _strange(self, write: Write, answer: httpx.Response) -> None:
        self._recorder.end(write, Outcome.UNKNOWN, f"{answer.status_code} {answer.text[:300]}")
        self._recorder.strange.append(write)

    async def _look(self, write: Write, where: str) -> None:
        """A second look at what was acknowledged."""
        if where == "other api":
            await self.get(write.key, other=True)
        elif where == "mongo":
            start = self._recorder.now()
            try:
                found = documents.value_stored((await self._system.stored(write.key)).get(write.key))
            except PyMongoError:
                return
            self._recorder.seen(self.name, "find", write.key, found, Side.MONGO, start)

    async def _ask(self, write: Write) -> None:
        """Whether a queued write is committed by now."""
        try:
            answer = await self._clients[1].get(f"/sync/{write.token}", params={"mapping": PREFIX})
        except httpx.HTTPError:
            self._pending.append(write)
            return
        if answer.status_code == 200 and answer.json()["committed"]:
            write.acknowledged = self._recorder.now()
        elif answer.status_code != 404 and "refused" not in answer.text:
            self._pending.append(write)
