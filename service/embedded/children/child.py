"""What the launcher runs: a command, where its output goes and how to know that it is ready."""

from collections.abc import Awaitable, Callable, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path

from gears.errors import WritethroughError

Probe = Callable[[], Awaitable[bool]]
"""Asks a process whether it is ready: True when it is; otherwise False, or an OSError that says what is missing."""


class CannotStart(WritethroughError):
    """The embedded setup, or one process of it, can't start; the message names the remedy."""


async def alive_is_enough() -> bool:
    """The probe of a process that has nothing to ask."""
    return True


@dataclass(frozen=True, slots=True, kw_only=True)
class Child:
    """One process under the launcher.

    Args:
        name: what messages call it.
        command: program and arguments.
        environment: variables to set on top of the launcher's own.
        ready: asked again and again until it says True.
        ready_within: seconds until a start counts as failed.
        nudge: called again and again while it stops; for a server that would not notice otherwise.
        log: file that takes its output; None leaves it on the terminal.
    """

    name: str
    command: Sequence[str]
    environment: Mapping[str, str] = field(default_factory=dict)
    ready: Probe = alive_is_enough
    ready_within: float = 20.0
    nudge: Callable[[], Awaitable[object]] | None = None
    log: Path | None = None
