"""Capture, committer and reconciler in words: how each is, why, and what to do about it."""

from dataclasses import dataclass
from enum import StrEnum

from service.watch.gather_state import MappingState

START = "run: writethrough worker"

_NOTHING = "nothing: it goes on by itself"

_COMMITTER = {
    "starting": _NOTHING,
    "retrying": "nothing, once MongoDB answers: the same commit is tried again until MongoDB takes it",
    "blocked": "what the reason says: nothing is committed until then",
    "preparing": _NOTHING,
    "restoring": _NOTHING,
}

_RECONCILER = {
    "starting": _NOTHING,
    "overloaded": "nothing: a sweep follows",
    "deaf": "what the reason says: until then only sweeps find what changed uncaptured",
}


class Level(StrEnum):
    """How bad it is."""

    OK = "ok"
    WAIT = "wait"
    """It goes on by itself, or will."""
    BAD = "bad"
    """Somebody should look."""


@dataclass(frozen=True, slots=True)
class Part:
    """One part of a mapping's machinery.

    Args:
        name: which.
        level: how bad it is.
        state: in a word.
        reason: why; empty when all is well.
        remedy: what to do; empty when there is nothing.
    """

    name: str
    level: Level
    state: str
    reason: str = ""
    remedy: str = ""


def parts_of(state: MappingState) -> list[Part]:
    """All three."""
    return [capture(state), committer(state), reconciler(state)]


def capture(state: MappingState) -> Part:
    """The recipe."""
    if state.capture is None:
        return Part("capture", Level.BAD, "unknown", state.errors.get("capture", ""))
    if state.capture.problem is None:
        return Part("capture", Level.OK, "capturing")
    reason, _, remedy = state.capture.problem.partition("; run: ")
    return Part("capture", Level.BAD, "not working", reason, f"run: {remedy}" if remedy else "")


def committer(state: MappingState) -> Part:
    """The worker that commits."""
    if state.backlog is None:
        return Part("committer", Level.BAD, "unknown", state.errors.get("backlog", ""))
    worker = state.backlog.worker
    if worker is None:
        return Part("committer", Level.BAD, "away", "no worker commits this mapping", START)
    if worker.state == "committing" and worker.aside:
        reason = f"{worker.aside:,} keys are set aside: {worker.aside_reason}"
        return Part("committer", Level.WAIT, worker.state, reason, "nothing: they are tried again; others go on")
    if worker.state == "committing":
        return Part("committer", Level.OK, worker.state)
    level = Level.BAD if worker.state == "blocked" else Level.WAIT
    return Part("committer", level, worker.state, worker.reason, _COMMITTER.get(worker.state, ""))


def reconciler(state: MappingState) -> Part:
    """The worker that compares both sides."""
    if "reconciler" in state.errors:
        return Part("reconciler", Level.BAD, "unknown", state.errors["reconciler"])
    if state.reconciler is None:
        return Part("reconciler", Level.BAD, "away", "nobody compares both sides", START)
    level = {"deaf": Level.BAD, "listening": Level.OK}.get(state.reconciler.state, Level.WAIT)
    found = state.reconciler
    return Part("reconciler", level, found.state, found.reason, _RECONCILER.get(found.state, ""))
