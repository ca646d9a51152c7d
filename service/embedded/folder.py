"""The data folder: created when missing, and used by one launcher at a time.

The lock's file descriptor is inherited by every process the launcher starts, so the folder counts as in use for as
long as one of them lives, also when the launcher itself is gone.
"""

import fcntl
import os
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager, suppress
from pathlib import Path

import anyio

from service.embedded.children.child import CannotStart

_ENDING = 2.0
"""Seconds that processes of a killed launcher are given to be gone."""


@asynccontextmanager
async def locked(data: Path) -> AsyncIterator[int]:
    """Hold the folder; gives the lock's file descriptor, for the children to inherit.

    Raises:
        CannotStart: the folder can't be written, or is in use.
    """
    path = data / "lock"
    try:
        for folder in (data, data / "redis", data / "mongo"):
            folder.mkdir(parents=True, exist_ok=True)
            if not os.access(folder, os.W_OK | os.X_OK):
                raise PermissionError(13, "Permission denied", str(folder))
        lock = os.open(path, os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o644)
    except OSError as error:
        raise CannotStart(
            f"The data folder {data} can't be used ({error.strerror}: {error.filename}). "
            "Make it writable, or choose another folder: DATA=<folder> or --data <folder>."
        ) from None
    try:
        await _take(lock, path)
        os.truncate(lock, 0)
        os.pwrite(lock, f"{os.getpid()}\n".encode(), 0)
        yield lock
    finally:
        os.close(lock)


async def _take(lock: int, path: Path) -> None:
    with anyio.move_on_after(_ENDING):
        while not _try(lock, path):
            if _launcher(lock) in _holders(path):
                break
            await anyio.sleep(0.05)
        else:
            return
    raise CannotStart(_in_use(lock, path))


def _try(lock: int, path: Path) -> bool:
    try:
        fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except BlockingIOError:
        return False
    except OSError as error:
        raise CannotStart(
            f"{path} can't be locked ({error.strerror}); choose a folder on a local disk: DATA=<folder>."
        ) from None
    return True


def _in_use(lock: int, path: Path) -> str:
    holders = _holders(path)
    launcher = _launcher(lock)
    otherwise = "or choose another folder: DATA=<folder> or --data <folder>."
    if launcher in holders:
        return f"{path.parent} is in use by another launcher, process {launcher}. Stop that one, {otherwise}"
    pids = " ".join(str(pid) for pid in sorted(holders))
    if pids:
        return f"{path.parent} is in use by processes left by an earlier run. End them with `kill {pids}`, {otherwise}"
    return f"{path.parent} is in use by another program. Stop that one, {otherwise}"


def _launcher(lock: int) -> int | None:
    with suppress(ValueError):
        return int(os.pread(lock, 32, 0))
    return None


def _holders(path: Path) -> set[int]:
    """The processes, this one aside, that have the file open; none where /proc can't tell."""
    wanted = path.stat()
    found = set()
    for entry in Path("/proc").glob("[0-9]*/fd/*"):
        with suppress(OSError):
            status = entry.stat()
            if (status.st_dev, status.st_ino) == (wanted.st_dev, wanted.st_ino):
                found.add(int(entry.parts[2]))
    return found - {os.getpid()}
