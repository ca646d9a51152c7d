# ruff: noqa: B905, F821
# mypy: ignore-errors
"""The writes of the API and the worker on RedisGears 1.x.

They are Python and no script, because Redis before 7.0 corrupts its memory when a script calls a command that a module
hooks. Their own writes aren't captured: they add their entry themselves, before the write, since an entry too many is
harmless and one too few is not.
"""

MOST_SEARCHED = 200
MARKED_SECONDS = "86400"
"""How long it is known that a key was deleted which is given back as deleted: entries from before may wait so long."""

NO_WRITES = ("fill", "backfill", "expire")


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

    What Redis may have forgotten is no condition.
    """
    kind = execute("TYPE", key)
    if kind not in ("none", JSON_TYPE):
        return "foreign"
    if condition in ("absent", "equals") and not is_checked():
        return "unchecked"
    present = kind == JSON_TYPE
    if condition == "absent" and present:
        return "failed"
    if condition == "present" and not present:
        return "failed"
    if condition == "equals" and not (present and current(key) == expected):
        return "failed"
    if execute("XLEN", CONFIG["stream"]) >= int(limit):
        return "backlog"
    return None


def is_checked():
    """Whether a committer has made sure that Redis has forgotten nothing."""
    life = present_life()
    return execute("GET", CONFIG["checked"]) == life


def written_since(key, since):
    """Whether entries after `since` tell of a write to the key."""
    for _, flat in execute("XRANGE", CONFIG["stream"], "(" + since, "+"):
        fields = dict(zip(flat[::2], flat[1::2]))
        if fields.get("k") == key and fields.get("e") not in NO_WRITES:
            return True
    return False


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
    keep_document(key)
    return ["ok", entry, str(existed), current(key), present_life()]


def remove(key, condition, expected, limit):
    """Delete a key and capture it, also a key that only MongoDB holds."""
    word = obstacle(key, condition, expected, limit)
    if word:
        return [word]
    existed = execute("EXISTS", key)
    entry = add(key, "del")
    execute("SET", gone(key), entry)
    bring(key, "")
    return ["ok", entry, str(existed), "", present_life()]


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


def roll_back(key, seen, document, filled_from, since, known, *increments):
    """Give Redis back what MongoDB holds, after a refusal."""
    if present_life() != known:
        return ["0"]
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


def restore(key, document, since, token, known, *increments):
    """Give Redis what it lost, uncaptured."""
    if execute("GET", CONFIG["lease"]) != token:
        return ["lease lost"]
    if present_life() != known:
        return ["rewound"]
    if execute("TYPE", key) not in ("none", JSON_TYPE) or written_since(key, since):
        return ["0"]
    execute("DEL", ticket_of(key))
    if not document and since != "0-0":
        execute("SET", gone(key), since, "EX", MARKED_SECONDS)
    bring(key, document, increments)
    return ["1"]


def warm(token, known, acked, *rest):
    """Give absent keys what MongoDB holds, which was read while `acked` was acknowledged.

    A document is its key, its text, how many increments follow, and these. What has an entry was written to since.
    """
    if execute("GET", CONFIG["lease"]) != token:
        return ["lease lost"]
    if present_life() != known:
        return ["rewound"]
    if execute("XLEN", CONFIG["stream"]) > MOST_SEARCHED or execute("GET", CONFIG["acked"]) != acked:
        return ["moved on"]
    entries = (dict(zip(flat[::2], flat[1::2])) for _, flat in execute("XRANGE", CONFIG["stream"], "-", "+"))
    written = {fields.get("k") for fields in entries}
    written.update(what.partition(" ")[2] for what in execute("HVALS", CONFIG["aside"]))
    given, i = 0, 0
    while i < len(rest):
        key, document, more = rest[i], rest[i + 1], int(rest[i + 2])
        if key not in written and not execute("EXISTS", key):
            execute("DEL", ticket_of(key))
            bring(key, document, rest[i + 3 : i + 3 + more])
            given += 1
        i += 3 + more
    return [str(given)]


def backfill(key, event, known):
    """Capture that MongoDB doesn't hold the present state of a key, if Redis has forgotten nothing."""
    if not is_checked() or present_life() != known:
        return ["0"]
    add(key, event)
    return ["1"]


def life():
    """Tell the present life."""
    return [present_life()]
