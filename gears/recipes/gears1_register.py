# ruff: noqa: BLE001, F821
# mypy: ignore-errors
"""Registration on RedisGears 1.x: which functions run when, and which one the worker's and the API's calls reach.

This is the end of the recipe's text; see `gears1_shared.py`.
"""

import json

WRITES = {"put": put, "remove": remove, "ticket": ticket, "fill": fill, "roll_back": roll_back, "restore": restore}
WRITES.update({"warm": warm, "backfill": backfill, "life": life})
ALLOWED_OOM_WRITES = ("remove", "roll_back", "restore", "backfill", "life")


def control(args):
    """`RG.TRIGGER <name> <verb> ...`: release, close, status, or one of the writes."""
    verb = args[1]
    if verb in WRITES:
        return write(verb, args[2:])
    if verb == "release":
        return release()
    if verb == "close":
        return close()
    state = shared()
    return json.dumps(
        {
            "version": CONFIG["version"],
            "registrations": CONFIG["registrations"],
            "captured": state.captured,
            "failures": state.failures,
            "last_error": state.failure,
            "held": len(state.held),
        }
    )


def write(verb, args):
    """One of the writes; its reply as bytes, which RedisGears passes on as they are."""
    reason = prevented(allow_oom=verb in ALLOWED_OOM_WRITES)
    if reason:
        return failure(reason)
    try:
        return [part.encode() for part in WRITES[verb](*args)]
    except Exception as error:
        return failure(error)


def on_command(function, **what):
    """Register a function for a command or a trigger."""
    GB("CommandReader", desc="writethrough").map(function).register(
        mode="sync", convertToStr=False, collect=False, **what
    )


def known(commands):
    """Those of these commands that this server has."""
    return [command for command in commands if execute("COMMAND", "INFO", command)[0] is not None]


def register_queued():
    """Take the commands of a MULTI that RedisGears looks up by name, if nobody does yet; return how many names."""
    names = [name for command in CONFIG["queued"] for name in (command, command.upper())]
    if "name" in CONFIG:
        taken = str(execute("RG.DUMPREGISTRATIONS"))
        names = [name for name in names if f"'trigger', '{name}'" not in taken]
    for name in names:
        on_command(rerun, trigger=name)
    return len(names)


def register_mapping(others):
    """Capture, hold, and listen to the worker; `others` are registered in the same session."""
    state = shared()
    state.failures, state.closed_until = 0, 0.0  # of this version before it was registered again
    hooked = known(CONFIG["hold"])
    CONFIG["registrations"] = len(hooked) + 2 + others
    GB("KeysReader", desc="writethrough").foreach(capture).register(
        prefix=CONFIG["prefix"] + ":*",
        mode="sync",
        readValue=False,
        eventTypes=CONFIG["events"],
        convertToStr=False,
        collect=False,
    )
    for command in hooked:
        on_command(holder(command), hook=command, keyprefix=CONFIG["prefix"] + ":")
    on_command(control, trigger=CONFIG["name"])


queued = register_queued() if "queued" in CONFIG else 0
if "name" in CONFIG:
    register_mapping(queued)
