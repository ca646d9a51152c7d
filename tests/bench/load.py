"""The load: clients that send a request, wait for its answer and send the next; in a process of its own.

`python -m tests.bench.load` reads a `Job` as JSON from stdin and prints a `Result` as JSON. Raw sockets and uvloop, so
that a few per cent of a core are enough and the contestants are what is measured.
"""

import asyncio
import random
import sys
from abc import abstractmethod
from collections import Counter
from time import perf_counter
from typing import cast

import httptools
import uvloop
from pydantic import BaseModel


class Job(BaseModel):
    """What to do.

    Args:
        protocol: `http`, or `redis` for JSON.SET by a plain client, or `ping` for PING.
        port: where, on this machine.
        prefix: resource name, or key prefix.
        clients: how many at a time.
        seconds: how long is measured, after a tenth of that to warm up.
        size: bytes of a document, about.
        keys: how many documents there are.
        reads: which part of the requests are reads.
        headers: further request headers.
        pause: seconds between an answer and the next request.
        fill: instead of all that, write every document once.
    """

    protocol: str
    port: int
    prefix: str
    clients: int = 1
    seconds: float = 1.0
    size: int = 200
    keys: int = 1000
    reads: float = 0.0
    headers: dict[str, str] = {}
    pause: float = 0.0
    fill: bool = False


class Result(BaseModel):
    """What came of it.

    Args:
        seconds: how long was measured.
        answers: how many answers there were, by status.
        p50: median latency in milliseconds.
        p99: 99th percentile.
        slowest: maximum.
    """

    seconds: float
    answers: dict[str, int]
    p50: float
    p99: float
    slowest: float


class _Client(asyncio.Protocol):
    """One connection with one request under way."""

    def __init__(self, run: "_Run") -> None:
        self._run = run
        self._sent = 0.0
        self._transport: asyncio.Transport | None = None

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        self._transport = cast("asyncio.Transport", transport)
        self.send()

    def connection_lost(self, exc: Exception | None) -> None:
        self._run.left(self)

    def send(self) -> None:
        assert self._transport is not None
        key = self._run.next_key()
        if key is None:
            self._transport.close()
            return
        self._sent = perf_counter()
        self._transport.write(self.request(key))

    def answered(self, status: str) -> None:
        self._run.note(status, perf_counter() - self._sent)
        if self._run.job.pause:
            asyncio.get_running_loop().call_later(self._run.job.pause, self.send)
        else:
            self.send()

    @abstractmethod
    def request(self, key: int) -> bytes: ...


class _HttpClient(_Client):
    def __init__(self, run: "_Run") -> None:
        super().__init__(run)
        self._parser = httptools.HttpResponseParser(self)
        self._headers = "".join(f"{name}: {value}\r\n" for name, value in run.job.headers.items())

    def data_received(self, data: bytes) -> None:
        self._parser.feed_data(data)

    def on_message_complete(self) -> None:
        self.answered(str(self._parser.get_status_code()))

    def request(self, key: int) -> bytes:
        job = self._run.job
        path = f"/{job.prefix}/{key}"
        if random.random() < job.reads:
            return f"GET {path} HTTP/1.1\r\nHost: x\r\n{self._headers}\r\n".encode()
        body = self._run.document(key)
        head = f"PUT {path} HTTP/1.1\r\nHost: x\r\n{self._headers}Content-Type: application/json\r\n"
        return f"{head}Content-Length: {len(body)}\r\n\r\n".encode() + body


class _RedisClient(_Client):
    """Of simple replies."""

    _reply = b""

    def data_received(self, data: bytes) -> None:
        self._reply += data
        if self._reply.endswith(b"\r\n"):
            status, self._reply = self._reply[:1].decode(), b""
            self.answered(status)

    def request(self, key: int) -> bytes:
        if self._run.job.protocol == "ping":
            return b"PING\r\n"
        parts = [b"JSON.SET", f"{self._run.job.prefix}:{key}".encode(), b"$", self._run.document(key)]
        return b"*4\r\n" + b"".join(b"$%d\r\n%b\r\n" % (len(part), part) for part in parts)


class _Run:
    """All clients of a job."""

    def __init__(self, job: Job) -> None:
        self.job = job
        self._latencies: list[float] = []
        self._answers: Counter[str] = Counter()
        self._begin = self._end = 0.0
        self._written = 0
        self._clients: set[_Client] = set()
        self._over = asyncio.Event()
        self._filling = "x" * max(0, job.size - 60)

    async def all(self) -> Result:
        loop = asyncio.get_running_loop()
        kind = _HttpClient if self.job.protocol == "http" else _RedisClient
        self._begin = perf_counter() + self.job.seconds / 10
        self._end = self._begin + self.job.seconds
        self._clients = {kind(self) for _ in range(self.job.clients)}
        for client in list(self._clients):
            await loop.create_connection(lambda client=client: client, "127.0.0.1", self.job.port)  # type: ignore[misc]
        await self._over.wait()
        ordered = sorted(self._latencies) or [0.0]

        def percentile(part: float) -> float:
            return round(ordered[int(part * (len(ordered) - 1))] * 1e3, 3)

        return Result(
            seconds=self.job.seconds,
            answers=dict(self._answers),
            p50=percentile(0.5),
            p99=percentile(0.99),
            slowest=percentile(1.0),
        )

    def next_key(self) -> int | None:
        """Which document to ask for; None when it is over."""
        self._written += 1
        if self.job.fill:
            return self._written - 1 if self._written <= self.job.keys else None
        return random.randrange(self.job.keys) if perf_counter() < self._end else None

    def document(self, key: int) -> bytes:
        """Another document under this id."""
        return f'{{"id":"{key}","name":"{self._written}","description":"{self._filling}"}}'.encode()

    def note(self, status: str, latency: float) -> None:
        """Count an answer."""
        if self._begin <= perf_counter() or self.job.fill:
            self._answers[status] += 1
            self._latencies.append(latency)

    def left(self, client: _Client) -> None:
        """This client is done."""
        self._clients.discard(client)
        if not self._clients:
            self._over.set()


async def _main() -> None:
    job = Job.model_validate_json(sys.stdin.read())
    print((await _Run(job).all()).model_dump_json())


if __name__ == "__main__":
    uvloop.run(_main())
