"""What servers reply: merged, and changed as other servers would say it."""

from collections.abc import Callable, Sequence
from typing import Any

from tests.wire.command import Command
from tests.wire.message import Document


def merged_reply(reply: Document, indexes: Sequence[int]) -> Document:
    """The reply to a part of a write as one to the whole: items are numbered as the client numbers them."""
    merged = dict(reply)
    for field in ("upserted", "writeErrors"):
        if field in merged:
            merged[field] = [item | {"index": indexes[item["index"]]} for item in merged[field]]
    return merged


def item_errors_reply(reply: Document, failing: Sequence[int], error: Document, command: Command) -> Document:
    """The reply with these items failed as well."""
    if not reply["ok"]:
        return reply
    failed = [*reply.get("writeErrors", []), *({"index": index} | error for index in failing)]
    if command.name == "update":
        reply.setdefault("nModified", 0)
    failed.sort(key=lambda item: int(item["index"]))
    if command.ordered:
        failed = failed[:1]
    return reply | {"writeErrors": failed}


def without_key_pattern(reply: Document) -> None:
    """Take from duplicate-key errors what names the index, except for the text: as DocumentDB has it."""
    for error in _errors(reply):
        error.pop("keyPattern", None)
        error.pop("keyValue", None)


def reworded(reword: Callable[[str], str]) -> Callable[[Document], None]:
    """Change the texts of errors, and leave what else there is."""

    def change(reply: Document) -> None:
        for error in _errors(reply):
            if "errmsg" in error:
                error["errmsg"] = reword(error["errmsg"])

    return change


def _errors(reply: Document) -> list[dict[str, Any]]:
    return [reply, *reply.get("writeErrors", [])] + [reply[w] for w in ("writeConcernError",) if w in reply]
