"""What is measured: which load, on whom."""

from dataclasses import dataclass

from tests.bench.load import Job

WRITERS = ("dual write", "cache-aside", "rgsync-style", "writethrough", "respond-async", "plain client")
CONFIRMED = ("dual write", "cache-aside", "writethrough")
READERS = ("bare", "dual write", "cache-aside", "writethrough")

KEYS = 1000


@dataclass(frozen=True, slots=True)
class Cell:
    """One load.

    Args:
        name: what tables call it.
        who: names of the contestants.
        clients: how many at a time.
        size: bytes of a document.
        reads: which part of the requests are reads.
        keys: how many documents there are.
    """

    name: str
    who: tuple[str, ...]
    clients: int
    size: int = 200
    reads: float = 0.0
    keys: int = KEYS

    def job(self, seconds: float) -> Job:
        """As the load generator takes it; the contestant fills in the rest."""
        return Job(
            protocol="",
            port=0,
            prefix="",
            clients=self.clients,
            seconds=seconds,
            size=self.size,
            keys=self.keys,
            reads=self.reads,
        )


DIRECT = (
    *(Cell(f"write, {n} clients", WRITERS, n) for n in (1, 16, 64, 256)),
    *(Cell(f"write 10 KB, {n} clients", CONFIRMED, n, size=10_000) for n in (1, 64)),
    Cell("write one hot key, 64 clients", CONFIRMED, 64, keys=1),
    *(Cell(f"read, {n} clients", READERS, n, reads=1.0) for n in (1, 64, 256)),
    *(Cell(f"read 90, write 10, {n} clients", CONFIRMED, n, reads=0.9) for n in (1, 64)),
)
DELAYED = (
    *(Cell(f"write, {n} clients, +5 ms", CONFIRMED, n) for n in (1, 64, 256)),
    Cell("write one hot key, 64 clients, +5 ms", CONFIRMED, 64, keys=1),
    Cell("read 90, write 10, 64 clients, +5 ms", CONFIRMED, 64, reads=0.9),
)
