"""Errors that MongoDB answers with, none of which blames a document: which commands, which code, at which level."""

from random import Random

from gears.in_mongo.errors.code_names import NAMES
from gears.in_mongo.errors.what_errors_mean import judge
from tests.torture.schedule import KEYS
from tests.torture.system import PREFIX
from tests.wire import Action, Command, On, apply_then_cut, cut, item_error, on, top_error, write_concern_error
from tests.wire.message import Document

_WRITES = ("update", "delete", "insert")
_COMMANDS = (*_WRITES, _WRITES, ("update",), ("find",), ("createIndexes",), (*_WRITES, "find", "createIndexes"))
_CODES = [code for code in NAMES if not judge({"code": code}).refuses]
_UNKNOWN = 987_654
"""No server has this one."""

_PRIMARY = (91, 189, 10107, 11600, 11602, 13435, 13436)
"""What servers say that are no primary any more."""


def one_document(seed: int) -> tuple[On, Action]:
    """Writes of one of the documents that are written most fail, one after the other or with others."""
    random = Random(seed)
    key, code = random.choice(KEYS[:6]), random.choice([*_CODES, _UNKNOWN])

    def is_for_it(item: Document) -> bool:
        return key in (item["q"].get("id"), str(item["q"].get("_id")))

    def holds_it(command: Command) -> bool:
        return any(is_for_it(item) for item in command.items)

    return on(("update", "delete"), PREFIX).where(holds_it), item_error(code, index=is_for_it)


def wrong_answers(seed: int) -> tuple[On, Action]:
    """Which commands are answered wrongly, and how."""
    random = Random(seed)
    names = random.choice(_COMMANDS)
    chosen = on(names).sometimes(random.choice((0.1, 0.5, 1.0)), seed=seed)
    code = random.choice((random.choice(_CODES), random.choice(_PRIMARY)))
    writes = isinstance(names, tuple) and set(names) <= set(_WRITES)
    kinds = ["top", "applied", "cut"] + (["item", "some", "concern", "partly"] if writes or names in _WRITES else [])
    match random.choice(kinds):
        case "top":
            return chosen, top_error(code, labels=["RetryableWriteError"] if random.random() < 0.5 else [])
        case "applied":
            return chosen, top_error(code, applied=True)
        case "item":
            return chosen, item_error(random.choice((code, 11000)))
        case "some":
            return chosen, item_error(code, index=0)
        case "concern":
            return chosen, write_concern_error(64)
        case "partly":
            return chosen, apply_then_cut(0)
        case _:
            return chosen, cut(applied=random.random() < 0.5)
