"""What is said of an error of MongoDB's or its driver's, in logs, `/readyz` and answers: the cause, and no value.

What servers and driver say themselves may quote documents, so texts are made of codes, names of indexes and fields, and
addresses alone.
"""

import re
from collections.abc import Iterator, Sequence
from collections.abc import Mapping as Dict
from typing import Any

from bson.errors import BSONError
from pymongo.errors import (
    AutoReconnect,
    BulkWriteError,
    ConfigurationError,
    ConnectionFailure,
    InvalidOperation,
    NotPrimaryError,
    OperationFailure,
    PyMongoError,
    ServerSelectionTimeoutError,
    WriteConcernError,
)

from gears.errors import WritethroughError
from gears.in_mongo.errors.code_names import NAMES
from gears.in_mongo.errors.known_codes import name_of, reason_of, remedy_of
from gears.in_mongo.errors.what_errors_mean import Meaning, judge
from gears.process.network_causes import cause_of

LONGEST = 200
"""How long a text is at the most."""

_NAME, _SHOWN = 60, 5

_CODE_NAME = re.compile(r"[A-Za-z]\w{0,60}")
_OPERATOR = re.compile(r"\$?[A-Za-z]\w{0,30}")
_INDEX = re.compile(
    r"E1100[01] duplicate key error (?:collection: [^{}\"']{1,250}? )?index: ([^\s{}\"']{1,120}) (?:collation|dup key)"
    r"|Duplicate key violation on the requested collection: Index '([^\s{}\"']{1,120})'"
)
_ADDRESS = re.compile(r"([A-Za-z0-9_.-]{1,100}|\[[0-9a-fA-F:]{2,40}\]):(\d{1,5}): ")
_SERVER = re.compile(r"<ServerDescription \('([A-Za-z0-9_.:-]{1,100})', (\d{1,5})\) ")
_CODE = re.compile(r"'code': (\d{1,8})\b")

_NESTED = (
    "details",
    "schemaRulesNotSatisfied",
    "schemasNotSatisfied",
    "clausesNotSatisfied",
    "propertiesNotSatisfied",
)


class NotAllWritten(WritethroughError, PyMongoError):
    """Some of a batch was not written, and is to be tried again.

    Args:
        failed: ids with the reasons.
    """

    def __init__(self, failed: Dict[str, str]) -> None:
        super().__init__(next(iter(failed.values())))
        self.failed = failed


def held_up(error: BaseException) -> str:
    """As `describe`, for where commits are held up: it begins with who holds them up."""
    text = describe(error)
    return text if text.startswith("MongoDB") else _shortened(f"MongoDB: {text}")


def describe(error: BaseException) -> str:
    """What is said of this error, or of the one that it was raised from: at most `LONGEST` characters, cause first."""
    first = error
    while isinstance(first.__cause__, PyMongoError):
        first = first.__cause__
    return _shortened(_described(first))


def describe_item(failure: Dict[str, Any]) -> str:
    """What is said of one of the `writeErrors` of a bulk write."""
    return _shortened(_item(failure))


def _described(error: BaseException) -> str:
    match error:
        case NotAllWritten():
            return str(error)
        case BulkWriteError():
            return _bulk(error.details)
        case WriteConcernError():
            return _unconfirmed({"code": error.code} | dict(error.details or {}))
        case OperationFailure():
            return _item({"code": error.code} | dict(error.details or {}))
        case NotPrimaryError():
            return _item(error.details) if isinstance(error.details, dict) else "MongoDB: not the primary"
        case ConnectionFailure():
            return _unreached(error)
        case ConfigurationError():
            return f"MongoDB: {cause_of(str(error)) or 'the settings of the connection are wrong'}"
        case InvalidOperation():
            return "MongoDB: the client is closed, or was asked for what it can't do"
        case BSONError():
            return "a document can't be written as BSON, or read"
        case TimeoutError():
            return "MongoDB: timed out"
        case OSError():
            return f"MongoDB: {cause_of(str(error)) or 'the connection broke'}"
        case _:
            return f"MongoDB: {type(error).__name__}"


def _bulk(details: Dict[str, Any]) -> str:
    failures: Sequence[Dict[str, Any]] = details.get("writeErrors") or ()
    ours = [failure for failure in failures if not judge(failure).refuses]
    unconfirmed = details.get("writeConcernErrors") or ()
    if unconfirmed and not ours:
        return _unconfirmed(unconfirmed[0])
    if not failures:
        return "MongoDB: a bulk write failed"
    more = f" (and {len(failures) - 1:,} more)" if len(failures) > 1 else ""
    return _shortened(_item((ours or failures)[0]), LONGEST - len(more)) + more


def _unconfirmed(failure: Dict[str, Any]) -> str:
    return f"MongoDB did not confirm on a majority: {_named(failure)}{_remedy(failure.get('code'))}"


def _item(failure: Dict[str, Any]) -> str:
    code = failure.get("code")
    if not isinstance(code, int):
        return "MongoDB: an error without a code"
    reason, named = reason_of(code), _named(failure)
    match judge(failure).meaning:
        case Meaning.DUPLICATE:
            return f"{reason}{_in_index(failure)}: {named}"
        case Meaning.DOCUMENT:
            return f"{reason}: {named}{_rules(failure)}"
        case _:
            return f"MongoDB: {named}{f': {reason}' if reason else ''}{_remedy(code)}"


def _named(failure: Dict[str, Any]) -> str:
    code, said = failure.get("code"), failure.get("codeName")
    if not isinstance(code, int):
        return "an error without a code"
    if code not in NAMES and isinstance(said, str) and _CODE_NAME.fullmatch(said):
        return f"{said} ({code})"
    return f"{name_of(code)} ({code})"


def _remedy(code: int | None) -> str:
    remedy = remedy_of(code) if code is not None else None
    return f"; {remedy}" if remedy else ""


def _in_index(failure: Dict[str, Any]) -> str:
    pattern = failure.get("keyPattern")
    fields = ", ".join(map(_trimmed, list(pattern)[:_SHOWN])) if isinstance(pattern, dict) else ""
    found = _INDEX.match(str(failure.get("errmsg", "")))
    name = (found[1] or found[2]) if found else ""
    if name and fields:
        return f" in the unique index {name} ({fields})"
    return f" in the unique index {name}" if name else f" of {fields}, which is unique" if fields else ""


def _rules(failure: Dict[str, Any]) -> str:
    info = failure.get("errInfo")
    found = list(dict.fromkeys(_broken(info.get("details"), ""))) if isinstance(info, dict) else []
    return f": {', '.join(found[:_SHOWN])}{', ...' if len(found) > _SHOWN else ''}" if found else ""


def _broken(rule: object, path: str) -> Iterator[str]:
    """The fields and the rules that a validator's explanation names, and nothing that a document holds."""
    if isinstance(rule, list):
        for each in rule:
            yield from _broken(each, path)
    if not isinstance(rule, dict):
        return
    name = rule.get("propertyName")
    if isinstance(name, str):
        path = f"{path}.{name}" if path else name
    nested = [rule[field] for field in _NESTED if field in rule]
    if nested:
        yield from _broken(nested, path)
        return
    operator = rule.get("operatorName")
    suffix = f" ({operator})" if isinstance(operator, str) and _OPERATOR.fullmatch(operator) else ""
    yield from (f"{_trimmed(field)}{suffix}" for field in _fields(rule, path))


def _fields(rule: Dict[str, Any], path: str) -> list[str]:
    names = rule.get("missingProperties") or rule.get("additionalProperties")
    if isinstance(names, list):
        return [f"{path}.{name}" if path else name for name in names if isinstance(name, str)]
    specified = rule.get("specifiedAs")
    if path or not isinstance(specified, dict):
        return [path] if path else []
    return [field for field in specified if not field.startswith("$")]


def _unreached(error: ConnectionFailure) -> str:
    text = str(error)
    if isinstance(error, ServerSelectionTimeoutError):
        servers = dict.fromkeys(f"{host}:{port}" for host, port in _SERVER.findall(text))
        where = ", ".join(list(servers)[:_SHOWN]) or "MongoDB"
    else:
        found = _ADDRESS.match(text) if isinstance(error, AutoReconnect) else None
        where = f"{found[1]}:{found[2]}" if found else "MongoDB"
    codes = [code for code in map(int, _CODE.findall(text)) if code in NAMES]
    cause = f"{name_of(codes[0])} ({codes[0]})" if codes else cause_of(text)
    return f"{where}: {cause or 'not reached'}"


def _trimmed(name: str) -> str:
    return name if len(name) <= _NAME else f"{name[:_NAME]}..."


def _shortened(text: str, longest: int = LONGEST) -> str:
    text = " ".join(text.split())
    return text if len(text) <= longest else f"{text[: longest - 3]}..."
