# ruff: noqa: B023, BLE001, F821
# mypy: ignore-errors
"""Hold on RedisGears 1.x: keeping a plain client's reply until its entries are committed.

`hold` stands in for a plain client's command: it runs the command and keeps the reply until the worker's
`RG.TRIGGER <name> release` finds the entries committed, or until time is up, worker or no worker.

How RedisGears 1.2 behaves, and why this is built around it:
- Hooks of its KeysReader (`commands=`) end the whole server when a MULTI holds two hooked commands, so this one uses
  CommandReader hooks. These, in a MULTI, hand the first queued command to the hook of the last one queued, and the
  others to a trigger of the command's name, whose reply comes as an array of one: hence the look at `args[0]`, and
  `register_queued`. Until the last command of that MULTI runs, and for ever if it is discarded, the next RG.TRIGGER of
  anybody is handed to that hook, of another mapping perhaps; its reply is no array of one then.
- A reply passes through Python: nil can't be given back, so it becomes an error, and commands whose replies hold nil
  in the normal course (JSON.ARRPOP, JSON.STRAPPEND, ...) are captured but not held.
- `call_next` has a flaw of its own: see `original`.
- Nothing can be held inside MULTI or a script: `isAsyncAllow()`.
- Commands that it runs for a hook or a trigger are let through by Redis also on a replica and without memory left, so
  the recipe asks itself: `prevented`.
"""

import ctypes
import sys
import threading
import time
from collections import namedtuple

ALLOWED_OOM = ("json.del", "json.forget", "json.clear", "del", "unlink", "rename", "renamenx")
OURS = "writethrough_"
TICK = 0.05
CLOSED_SECONDS = 2

NOTHING = "ERR writethrough: nothing was written, the NX or XX condition or the path does not apply"
LATE = "ERR writethrough: not confirmed within {:g} s; the write is in Redis and queued for MongoDB"
CLOSED = "ERR writethrough: not confirmed, the recipe is being replaced; the write is in Redis and queued for MongoDB"
LOST = "ERR writethrough: not confirmed, Redis was emptied meanwhile and may have lost the write"
REFUSED = "ERR writethrough: refused: {}"
UNCAPTURED = "ERR writethrough: written to Redis, but it could not be queued for MongoDB: {}"

Held = namedtuple("Held", "life last entries deadline future reply")
"""A client that waits: life, newest entry as numbers, all its entries, when time is up, future, reply."""


def holder(command):
    """The function that stands in for `command`."""

    def hold(args):
        if args[0] == CONFIG["name"]:
            return control(args)
        if args[0].startswith(OURS):
            return forward(args)
        if args[0].lower() != command:
            return rerun(args)
        state = shared()
        reason = prevented(allow_oom=state.muted or command in ALLOWED_OOM)
        if reason:
            return failure(reason)
        outer, state.entries = state.entries, []
        failures = state.failures
        try:
            reply = relay(original(args[1:]))
        except Exception as error:
            return failure(error)
        finally:
            entries, state.entries = state.entries, outer
        if state.failures != failures:
            return failure(UNCAPTURED.format(state.failure))
        if not entries or not isAsyncAllow():
            return reply
        now, life = time.monotonic(), present_life()
        if now < state.closed_until:
            return failure(CLOSED)
        future = gearsFuture()
        with state.lock:
            state.held.append(Held(life, number(entries[-1]), entries, now + CONFIG["hold_seconds"], future, reply))
            if not state.watched:
                start_watching(state)
        return future

    return hold


def original(arguments):
    """Run the command that is hooked.

    `call_next` drops a reference to its arguments that it doesn't own (in all of 1.2), which sooner or later ends the
    server; so they are kept alive meanwhile, and what is missing afterwards is given back.
    """
    arguments = tuple(arguments)
    kept = [arguments, arguments]
    before = sys.getrefcount(arguments)
    try:
        return call_next(*arguments)
    finally:
        if sys.getrefcount(arguments) < before:
            ctypes.pythonapi.Py_IncRef(ctypes.py_object(arguments))
        kept.clear()


def relay(reply):
    """A command's reply in the form in which RedisGears passes it on as it was."""
    if reply is None:
        return failure(NOTHING)
    if reply == "OK":
        return "+OK"
    if isinstance(reply, int):
        return reply
    return reply.encode() if isinstance(reply, str) else bytes(reply)


def forward(args):
    """Call another mapping's trigger; its answer as that would give it."""
    try:
        [answer] = execute("RG.TRIGGER", *args)
    except Exception as error:
        return failure(error)
    return [part.encode() for part in answer] if isinstance(answer, list) else answer


def rerun(args):
    """Run a command that was queued in a MULTI; its own hook comes in again on the way."""
    try:
        return relay(execute(*args))
    except Exception as error:
        return failure(error)


def start_watching(state):
    """See to it that nobody waits for too long; the lock is held."""
    state.watched = True
    threading.Thread(target=watch, daemon=True).start()


def watch():
    """Let go those whose time is up, for as long as anybody waits."""
    state = shared()
    watching = True
    try:
        while watching:
            time.sleep(TICK)
            now = time.monotonic()
            with state.lock:
                late = take(state.held, lambda item: item.deadline <= now)
                watching = state.watched = bool(state.held)
            for item in late:
                item.future.continueRun(failure(LATE.format(CONFIG["hold_seconds"])))
    except NameError:  # the session was unregistered, and with it went its functions
        state.watched = False


def release():
    """Let go those whose entries are committed or refused, by what the worker wrote into Redis; return how many."""
    state = shared()
    if not state.held:
        return 0
    life = present_life()
    _, acked = (execute("GET", CONFIG["acked"]) or "0 .0-0").split(" ")
    acked_life, _, last = acked.rpartition(".")
    aside = set(execute("HKEYS", CONFIG["aside"]))
    with state.lock:
        # Of another life than the present one it may be that Redis has forgotten them.
        lost = take(state.held, lambda item: item.life != life)
        settled = take(
            state.held,
            lambda item: (
                acked_life == life
                and item.last <= number(last)
                and aside.isdisjoint(token(life, entry) for entry in item.entries)
            ),
        )
        if state.held and not state.watched:
            start_watching(state)
    if settled or lost:
        times = [number(entry)[0] for item in (*settled, *lost) for entry in item.entries]
        refused = dict(r.split(" ", 1) for r in execute("ZRANGEBYSCORE", CONFIG["refused"], min(times), max(times)))
        for item in settled:
            item.future.continueRun(verdict(item, refused))
        for item in lost:
            item.future.continueRun(verdict(item._replace(reply=failure(LOST)), refused))
    return len(settled) + len(lost)


def close():
    """Let all go unconfirmed, and hold nobody for a moment, since replacing the recipe drops those it holds."""
    state = shared()
    state.closed_until = time.monotonic() + CLOSED_SECONDS
    with state.lock:
        dropped = take(state.held, lambda item: True)
    for item in dropped:
        item.future.continueRun(failure(CLOSED))
    return len(dropped)


def take(held, due):
    """Remove and return those that are due, the oldest first."""
    taken, kept = [], []
    for item in held:
        (taken if due(item) else kept).append(item)
    held.clear()
    held.extend(kept)
    return taken


def number(entry):
    """An entry's id as numbers, ordered as Redis orders entries."""
    ms, _, seq = entry.partition("-")
    return int(ms), int(seq)


def token(life, entry):
    """How the worker names an entry."""
    return f"{life}.{entry}"


def verdict(item, refused):
    """The reply of a client whose entries are settled, given the reasons of refused entries."""
    for entry in item.entries:
        if token(item.life, entry) in refused:
            return failure(REFUSED.format(" ".join(refused[token(item.life, entry)].split())))
    return item.reply
