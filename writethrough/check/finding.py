"""What `writethrough check` found of one thing."""

from collections.abc import Awaitable, Callable
from dataclasses import dataclass

from gears.cli.command_line import FAILURES, explain


@dataclass(frozen=True, slots=True)
class Finding:
    """What was tried.

    Args:
        server: `Redis` or `MongoDB`.
        what: what it was.
        has: whether the server can do it.
        needed: whether nothing works without.
        follows: what that means, and what to do; empty where there is nothing to say.
    """

    server: str
    what: str
    has: bool
    needed: bool = False
    follows: str = ""


async def tried(server: str, what: str, attempt: Callable[[], Awaitable[object]], remedy: str = "") -> Finding:
    """What an attempt shows of something that is needed."""
    try:
        await attempt()
    except FAILURES as error:
        return Finding(server, what, has=False, needed=True, follows=explain(error) + remedy)
    return Finding(server, what, has=True, needed=True)
