"""The options in MONGO_URI: what the promises rest on isn't for them to choose.

Writes are acknowledged by a majority that has them in its journal, and reads ask the primary for what a majority has.
An option that asks for less changes nothing; one that asks for something else is refused, so that nobody relies on it.
"""

import re
import warnings
from collections.abc import Callable
from typing import Any

from pymongo.errors import PyMongoError
from pymongo.uri_parser import split_options

from gears.errors import ConfigError

_HIDDEN = frozenset({"authmechanismproperties", "tlscertificatekeyfilepassword"})
"""Options whose values are secrets, which the driver may quote."""

_MAJORITY = "take it out, or write w=majority"
_WRITES = "asks for something else than the majority on which writes wait"
_READS = "asks for something else than what a majority has, which reads rely on"


def check_options(uri: str) -> None:
    """Refuse options that can't be had.

    Raises:
        ConfigError: there is one; the message names it and the remedy.
    """
    query = uri.partition("?")[2]
    if "@" in query:
        return  # that is a part of a password that isn't percent-encoded: the driver refuses it without quoting it
    for option in filter(None, re.split("[&;]", query)):
        name, value = option.partition("=")[::2]
        for key, parsed in _parse(name, option).items():
            reason = _REFUSED.get(key, lambda _: None)(parsed)
            if reason is not None:
                raise ConfigError(f"MONGO_URI: {name}={value} {reason}")


def _parse(name: str, option: str) -> dict[str, Any]:
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("error", UserWarning)  # such as a compression of which the module isn't installed
            return dict(split_options(option))
    except (PyMongoError, ValueError, OSError, UserWarning) as error:
        text = "its value is wrong" if name.lower() in _HIDDEN else str(error).removesuffix(" Refer to docstring.")
        raise ConfigError(f"MONGO_URI: the option {name} can't be used: {text}") from error


def _write_concern(w: object) -> str | None:
    if w == 0:
        return f"asks MongoDB for no answer, and a write is acknowledged only when MongoDB has it; {_MAJORITY}"
    return None if w in (1, "majority") else f"{_WRITES}; {_MAJORITY}"


def _read_concern(level: object) -> str | None:
    return None if level in ("local", "available", "majority") else f"{_READS}; take it out"


def _read_preference(mode: object) -> str | None:
    if mode == "primary":
        return None
    return "asks others than the primary, which may not know the latest writes; take it out"


_REFUSED: dict[str, Callable[[Any], str | None]] = {
    "w": _write_concern,
    "readconcernlevel": _read_concern,
    "readpreference": _read_preference,
}
"""Why an option's value can't be had, by the option; None where it can."""
