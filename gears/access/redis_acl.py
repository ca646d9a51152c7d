"""Redis ACL users (https://redis.io/docs/latest/operate/oss_and_stack/management/security/acl/).

What a recipe or script calls is asked of the user who runs it, or, for the captures of RedisGears 2.0, of the user who
loaded it: the worker. RedisGears 1.x asks neither.
"""

from collections.abc import Iterable
from hashlib import sha256

from gears.access.users import Role
from gears.contract.mapping import Mapping
from gears.contract.redis_names import Names

_COMMANDS = {
    Role.SERVICE: (
        *("auth", "hello", "ping", "select", "client|setinfo", "client|setname", "info", "time", "module|list"),
        *("multi", "exec", "discard", "eval", "evalsha", "script|load", "subscribe", "unsubscribe"),
        *(
            "json.get",
            "get",
            "exists",
            "type",
            "hgetall",
            "hkeys",
            "hexists",
            "xlen",
            "xrange",
            "xinfo|stream",
            "zrangebyscore",
            "pttl",
        ),
        *("json.set", "del", "set", "xadd", "xdel"),  # what a write of the recipe is made of
    ),
    Role.CLIENT: (
        *("@read", "@write", "@connection", "@transaction"),
        *("json.set", "json.get", "json.mget", "json.del", "json.forget", "json.type", "json.numincrby"),
        *("json.nummultby", "json.strappend", "json.strlen", "json.arrappend", "json.arrindex", "json.arrinsert"),
        *("json.arrlen", "json.arrpop", "json.arrtrim", "json.objkeys", "json.objlen", "json.toggle", "json.clear"),
    ),
}
_COMMANDS[Role.WORKER] = (
    *_COMMANDS[Role.SERVICE],
    *("json.mget", "json.debug", "scan", "dbsize", "xread", "xtrim", "publish", "psubscribe", "punsubscribe"),
    *("xrevrange", "expire", "pexpire", "pttl", "hset", "hdel", "zadd", "zremrangebyrank", "getdel"),
    *("copy", "config|get", "watch", "unwatch", "client|no-touch", "touch"),
)

_OF_ENGINE = {
    ("gears1", Role.SERVICE): ("rg.trigger", "rg.pydumpsessions", "rg.dumpregistrations"),
    ("gears1", Role.WORKER): (
        *("rg.trigger", "rg.pydumpsessions", "rg.dumpregistrations", "rg.pyexecute", "rg.unregister"),
    ),
    ("gears1", Role.CLIENT): ("rg.trigger",),
    ("gears2", Role.CLIENT): ("json.mset", "json.merge"),
    ("gears2", Role.SERVICE): ("tfcall", "tfunction|list"),
    ("gears2", Role.WORKER): ("tfcall", "tfunction|list", "tfunction|load"),
    ("function", Role.CLIENT): ("json.mset", "json.merge"),
    ("function", Role.SERVICE): ("fcall", "function|list", "function|stats", "publish"),
    ("function", Role.WORKER): ("fcall", "function|list", "function|stats", "function|load"),
}

_NOT_IN_ALL = {"gears1": ("client|setinfo", "client|no-touch")}
"""What not every Redis that an engine runs on has; 7.0 refuses the rule, and clients get along without the command."""


def commands_of(engine: str) -> list[str]:
    """The names of all commands that the API and the worker use with this engine, without subcommands."""
    used = (*_COMMANDS[Role.WORKER], *_OF_ENGINE[engine, Role.WORKER], *_OF_ENGINE[engine, Role.SERVICE])
    return list(dict.fromkeys(name.partition("|")[0] for name in used))


def hashed(password: str) -> str:
    """A password as rules take it, so that it is shown nowhere."""
    return f"#{sha256(password.encode()).hexdigest()}"


def rules(role: Role, mappings: Iterable[Mapping], *, engine: str, database: int = 0) -> list[str]:
    """The rules of a role's user, all but its password, as `ACL SETUSER` and ACL files take them.

    Args:
        role: whose.
        mappings: what the system keeps.
        engine: the engine's name; servers refuse rules for commands that they don't have.
        database: the Redis database.
    """
    unknown = _NOT_IN_ALL.get(engine, ())
    asked = (*_COMMANDS[role], *_OF_ENGINE.get((engine, role), ()))
    commands = [f"+{command}" for command in asked if command not in unknown]
    if role is Role.CLIENT:
        commands += ["-@admin", "-@dangerous", "-@scripting"]
    keys = ["~sync:installing"] if (engine, role) == ("gears1", Role.WORKER) else []
    channels: list[str] = []
    for mapping in mappings:
        names = Names(mapping.prefix)
        keys.append(f"~{mapping.prefix}:*")
        if role is Role.SERVICE:
            read = "~" if engine == "gears1" else "%R~"  # Redis 6.2 doesn't tell reading from writing
            keys += [f"~{names.stream}", f"~{names.life}", f"~{names.gone}*", f"~{names.ticket}*"]
            keys += [f"~{names.idempotency}*"]
            kept = [
                names.acked,
                names.refused,
                names.aside,
                names.worker,
                names.reconciling,
                names.checked,
            ]
            keys += [f"{read}{name}" for name in kept]
            channels += [f"&{names.channel}"] + ([f"&{names.own}"] if engine == "function" else [])
        if role is Role.WORKER:
            keys += [f"~{names.stream}", f"~{names.stream}:*"]
            channels += [f"&{names.channel}", f"&{names.own}"]
            channels += [f"&__keyspace@{database}__:{name}" for name in (f"{mapping.prefix}:*", names.probe)]
    return ["resetkeys", *keys, "resetchannels", *channels, "-@all", *commands]
