# ruff: noqa: BLE001, F821
# mypy: ignore-errors
"""Capture on RedisGears 1.x: adding an entry to the sync stream for each write, with the life in which it is made.

`capture` runs inside every write to a key of the mapping, in its atomic unit.
"""

APPEARS = ("rename_to", "copy_to", "restore", "move_to")


def present_life(anywhere=False):
    """The present life; a new one where Redis's memory isn't the one that the life is kept with.

    The memory's id is another one after a restart, and after another server's memory was taken over. A life's name is
    never used again: it tells the run of the server, when it began, and whose it is. In another database than the
    mapping's: None, if that was asked.
    """
    memory = said(execute("INFO", "replication"), "master_replid")
    life, _, kept_with = (execute("GET", CONFIG["life"]) or "").partition(" ")
    if kept_with == memory:
        return life
    if anywhere and is_elsewhere():
        return None
    run = said(execute("INFO", "server"), "run_id")[:8]
    seconds, microseconds = execute("TIME")
    life = "{}{:013x}{}".format(run, int(seconds) * 1000000 + int(microseconds), CONFIG["tag"])
    execute("SET", CONFIG["life"], life + " " + memory)
    return life


def is_elsewhere():
    """Whether a command runs in another database: COPY tells, since it copies nothing to where it comes from."""
    try:
        execute("COPY", CONFIG["life"], CONFIG["life"], "DB", "0")
    except Exception as error:
        return "same" not in str(error)
    return True


def add(key, event, *more):
    """Add an entry, with the life in which that is done; return its id.

    Whoever reads the key from MongoDB meanwhile can't fill it any more.
    """
    execute("DEL", ticket_of(key))
    return execute("XADD", CONFIG["stream"], "*", "k", key, "e", event, "l", present_life(), *more)


def keep_document(key):
    """Add an entry that carries the document, if the key has a time to live: it may expire before that is committed."""
    if execute("PTTL", key) >= 0:
        add(key, "expire", "d", current(key))


def waits(key):
    """Whether anything waits that may be of the key."""
    return execute("XLEN", CONFIG["stream"]) > 0 or is_aside(key)


def is_aside(key):
    """Whether a write to the key waits that MongoDB doesn't take now: it is set aside."""
    return any(what.partition(" ")[2] == key for what in execute("HGETALL", CONFIG["aside"]))


def capture(record):
    """Add an entry for a write; for a delete, leave its mark too."""
    state = shared()
    if state.muted:
        return
    key, event = record["key"], record["event"]
    try:
        # What was renamed on in the same MULTI isn't there any more, but tells where that came from.
        others = (JSON_TYPE, "none") if event == "rename_to" else (JSON_TYPE,)
        if event in APPEARS and execute("TYPE", key) not in others:
            return
        if present_life(anywhere=True) is None:
            return
        if event == "expire":
            if waits(key) and execute("TYPE", key) == JSON_TYPE:
                keep_document(key)
            return
        entry = add(key, event)
        present = execute("EXISTS", key)
        if present and execute("TYPE", key) == JSON_TYPE:
            keep_document(key)
        if event in CONFIG["deletes"] and not present:
            execute("SET", gone(key), entry)
    except Exception as error:
        state.failures += 1
        state.failure = str(error)
        raise
    state.captured += 1
    if state.entries is not None:
        state.entries.append(entry)
