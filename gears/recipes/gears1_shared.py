# ruff: noqa: F821
# mypy: ignore-errors
"""What all functions of a session share on RedisGears 1.x: its state, names and texts, and when Redis takes no writes.

RedisGears pickles each function by itself, so what they share hangs on a module of its own, made when first needed.

The recipe is the texts of these files, one behind the other, behind a line `CONFIG = {...}`: this one, then
`gears1_capture.py`, `gears1_writes.py`, `gears1_hold.py`, `gears1_register.py`. It is Python 3.7, sent with
RG.PYEXECUTE, one session per mapping. CONFIG is either {version, queued}, or {name, version, prefix, stream, life, tag,
acked, refused, aside, checked, lease, gone, ticket, ticket_ms, events, deletes, hold, hold_seconds}, or both, for a
text that is sent by itself; `queued` and `hold` are the commands whose clients are held.
"""

import sys
import threading
import time
import types
from collections import deque

JSON_TYPE = "ReJSON-RL"
SAMPLE_SECONDS = 0.1

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
        module.replica = module.full = False
        module.sampled = 0.0
        sys.modules[name] = module
    return module


def said(section, name):
    """What INFO says under a name."""
    start = section.index(name + ":") + len(name) + 1
    return section[start : section.index("\r", start)]


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


def failure(reason):
    """An error reply; ASCII, since RedisGears reads it while it doesn't hold Python's lock."""
    return "-" + str(reason).encode("ascii", "backslashreplace").decode()
