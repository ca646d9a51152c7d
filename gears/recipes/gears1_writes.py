# ruff: noqa: B905, F821
# mypy: ignore-errors
"""The writes of the API and the worker on RedisGears 1.x; this text stands before that of `gears1.py`.

They are Python and no script, because Redis before 7.0 corrupts its memory when a script calls a command that a module
hooks. Their own writes aren't captured: they add their entry themselves, before the write, since an entry too many is
harmless and one too few is not.
"""

import re
import sys
import threading
import time
import types
from collections import deque

JSON_TYPE = "ReJSON-RL"
MOST_SEARCHED = 200
SAMPLE_SECONDS = 0.1
LEAP_MS = 60000

READ_ONLY = "READONLY You can't write against a read only replica."
OUT_OF_MEMORY = "OOM command not allowed when used memory > 'maxmemory'."


def shared():
    """What the functions of this session share; empty again after a restart of Redis."""
    name = "{name}_{version}".format(**CONFIG)
    module = sys.modules.get(name)
    if module is None:
        module = types.ModuleType(name)
        module.lock = threading.Lock()
        module.held = deque()  # oldest entry first, which is also the nearest deadline first
        module.watched = False
        module.closed_until = 0.0
        module.entries = None  # those captured by the command that `hold` runs now
        module.muted = False  # while a function here writes
        module.captured = module.failures = 0
        module.failure = ""
        module.run = None
        module.begun = False
        module.replica = module.full = False
        module.sampled = 0.0
        sys.modules[name] = module
    return module


def server_run():
    """What tells this run of the server from others."""
    state = shared()
    if state.run is None:
        state.run = re.search(r"run_id:(\w{8})", execute("INFO", "server")).group(1)
    return state.run


def add(key, event, *more):
    """Add an entry, with the run of the server, by which writes made since a restart can be told; return its id.

    Whoever reads the key from MongoDB meanwhile can't fill it any more.
    """
    execute("DEL", ticket_of(key))
    state = shared()
    fields = ("k", key, "e", event, "r", server_run(), *more)
    entry = execute("XADD", CONFIG["stream"], "*", *fields)
    if not state.begun:
        entry = leap(entry, fields)
    state.begun = True
    return entry


def leap(entry, fields):
    """The first entry of a run, on a stream that is ahead of the clock.

    Ids go on where Redis remembers, so entries that it lost when it was restarted may have had the next ones. They are
    passed over, since nobody could tell them apart; and so are those that another run passed on to, which may be lost
    as well.
    """
    ms = int(entry.partition("-")[0])
    if ms < (int(execute("TIME")[0]) + 1) * 1000:
        return entry
    execute("XDEL", CONFIG["stream"], entry)
    leap_ms = LEAP_MS + int(server_run(), 16) % LEAP_MS
    return execute("XADD", CONFIG["stream"], f"{ms + leap_ms}-0", *fields)


def prevented(allow_oom=False):
    """Why Redis takes no writes, or None: commands that RedisGears runs are not asked this by Redis."""
    state = shared()
    now = time.monotonic()
    if now >= state.sampled + SAMPLE_SECONDS:
        state.sampled = now
        state.replica = execute("ROLE")[0] != "master"
        memory = dict(line.split(":", 1) for line in execute("INFO", "memory").splitlines() if ":" in line)
        limited = memory.get("maxmemory_policy") == "noeviction" and int(memory["maxmemory"]) > 0
        state.full = limited and int(memory["used_memory"]) > int(memory["maxmemory"])
    if state.replica:
        return READ_ONLY
    return OUT_OF_MEMORY if state.full and not allow_oom else None


def named_for(key, prefix):
    """What is kept for a key under this prefix."""
    start = len(CONFIG["prefix"]) + 1
    return (prefix if isinstance(key, str) else prefix.encode()) + key[start:]


def gone(key):
    """The name of the mark of a key's delete."""
    return named_for(key, CONFIG["gone"])


def ticket_of(key):
    """The name of a key's ticket."""
    return named_for(key, CONFIG["ticket"])


def current(key):
    """The document's text; empty for none."""
    return execute("JSON.GET", key) or ""


def bring(key, document, increments=()):
    """Give the key this document, or delete it, without its being captured.

    The increments are paths and amounts, in turn: numbers that the parser of JSON doesn't read exactly.
    """
    state = shared()
    state.muted = True
    try:
        if document:
            execute("JSON.SET", key, "$", document)
            for path, amount in zip(increments[::2], increments[1::2]):
                execute("JSON.NUMINCRBY", key, path, amount)
        else:
            execute("DEL", key)
    finally:
        state.muted = False


def obstacle(key, condition, expected, limit):
    """What keeps a write from being made: a word for the caller, or None.

    What Redis may have forgotten equals nothing.
    """
    kind = execute("TYPE", key)
    if kind not in ("none", JSON_TYPE):
        return "foreign"
    present = kind == JSON_TYPE
    if condition == "absent" and present:
        return "failed"
    if condition == "present" and not present:
        return "failed"
    if condition == "equals" and not (present and current(key) == expected):
        return "failed"
    if execute("XLEN", CONFIG["stream"]) >= int(limit):
        return "backlog"
    if condition == "equals" and execute("GET", CONFIG["checked"]) != server_run():
        return "unchecked"
    return None


def written_since(key, since):
    """Whether entries after `since` tell of a write to the key; fills and backfills don't."""
    for _, flat in execute("XRANGE", CONFIG["stream"], "(" + since, "+"):
        fields = dict(zip(flat[::2], flat[1::2]))
        if fields.get("k") == key and fields.get("e") not in ("fill", "backfill"):
            return True
    return False


def is_aside(key):
    """Whether a write to the key waits that MongoDB doesn't take now, as gears/aside.py keeps it."""
    return any(what.partition(" ")[2] == key for what in execute("HGETALL", CONFIG["aside"]))


def maybe_pending(key):
    """Whether a write to the key may wait to be committed: what MongoDB holds is not its present state then."""
    return execute("XLEN", CONFIG["stream"]) > MOST_SEARCHED or written_since(key, "0-0") or is_aside(key)


def put(key, document, condition, expected, limit, *increments):
    """Store a document and capture it."""
    word = obstacle(key, condition, expected, limit)
    if word:
        return [word]
    existed = execute("EXISTS", key)
    entry = add(key, "json.set")
    try:
        bring(key, document, increments)
    except Exception:
        execute("XDEL", CONFIG["stream"], entry)
        raise
    return ["ok", entry, str(existed), current(key)]


def remove(key, condition, expected, limit):
    """Delete a key and capture it, also a key that only MongoDB holds."""
    word = obstacle(key, condition, expected, limit)
    if word:
        return [word]
    existed = execute("EXISTS", key)
    entry = add(key, "del")
    execute("SET", gone(key), entry)
    bring(key, "")
    return ["ok", entry, str(existed), ""]


def ticket(key, token):
    """Let the caller read the key from MongoDB and fill it with what it finds; any write to the key takes this away."""
    if execute("EXISTS", key) or maybe_pending(key):
        return []
    execute("SET", ticket_of(key), token, "NX", "PX", str(CONFIG["ticket_ms"]))
    return [execute("GET", ticket_of(key))]


def fill(key, document, filled_from, token, *increments):
    """Give Redis what MongoDB holds."""
    if execute("EXISTS", key) or execute("GET", ticket_of(key)) != token:
        return []
    entry = add(key, "fill", "v", filled_from)
    try:
        bring(key, document, increments)
    except Exception:
        execute("XDEL", CONFIG["stream"], entry)
        raise
    return [current(key)]


def roll_back(key, seen, document, filled_from, since, *increments):
    """Give Redis back what MongoDB holds, after a refusal."""
    if execute("TYPE", key) != JSON_TYPE or current(key) != seen or written_since(key, since):
        return ["0"]
    left = execute("PTTL", key)
    if filled_from:
        add(key, "fill", "v", filled_from)
    try:
        bring(key, document, increments)
    finally:
        if left > 0:
            execute("PEXPIRE", key, str(left))
    return ["1"]


def restore(key, document, since, token, *increments):
    """Give Redis what it lost, uncaptured."""
    if execute("GET", CONFIG["lease"]) != token:
        return ["lease lost"]
    if execute("TYPE", key) not in ("none", JSON_TYPE) or written_since(key, since):
        return ["0"]
    execute("DEL", ticket_of(key))
    bring(key, document, increments)
    return ["1"]
