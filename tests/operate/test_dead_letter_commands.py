"""`writethrough dead-letters`: what MongoDB refused is looked at, written again, or given up."""

import json
from typing import Any

import pytest_asyncio

from tests.support.commands import Commands
from tests.support.stack import Stack, eventually


async def letter_of(stack: Stack, commands: Commands, key: str) -> dict[str, Any]:
    """The letter of a key, as soon as it is listed."""

    async def find() -> dict[str, Any] | None:
        return next((each for each in await commands.reports(stack, "dead-letters list") if each["key"] == key), None)

    found: dict[str, Any] = await eventually(find)
    return found


@pytest_asyncio.fixture(loop_scope="session")
async def refused(stack: Stack, commands: Commands, new_id: str) -> str:
    """The id of a dead letter of `notes:<new_id>-2`, whose slug `notes:<new_id>-1` holds."""
    await stack.mongo_client.test.notes.create_index(
        "slug", unique=True, partialFilterExpression={"slug": {"$exists": True}}
    )
    await stack.set(f"{new_id}-1", {"slug": new_id}, prefix="notes")
    await stack.drained("notes")
    await stack.set(f"{new_id}-2", {"slug": new_id}, prefix="notes")
    return str((await letter_of(stack, commands, f"notes:{new_id}-2"))["id"])


async def test_a_letter_is_listed_shown_and_dropped(
    stack: Stack, commands: Commands, new_id: str, refused: str
) -> None:
    listed = await letter_of(stack, commands, f"notes:{new_id}-2")
    assert (listed["mapping"], listed["id"]) == ("notes", refused)
    assert "slug" in listed["reason"]
    assert "document" not in listed
    [shown] = await commands.reports(stack, f"dead-letters show {refused}")
    assert json.loads(shown["document"]) == {"slug": new_id}
    [dropped] = await commands.reports(stack, f"dead-letters drop {refused}")
    assert dropped["outcome"] == "dropped"
    await commands.reports(stack, f"dead-letters show {refused}", code=2)
    await commands.reports(stack, "dead-letters show nonsense", code=2)


async def test_what_can_be_stored_by_now_is_committed_and_its_letter_dropped(
    stack: Stack, commands: Commands, new_id: str, refused: str
) -> None:
    [again] = await commands.reports(stack, f"dead-letters retry {refused}", code=1)
    assert again["outcome"] == "refused"
    assert "slug" in again["reason"]
    letter = await letter_of(stack, commands, f"notes:{new_id}-2")
    assert letter["id"] != refused, "the new letter stands for the old one"
    await stack.redis_client.delete(f"notes:{new_id}-1")
    await stack.drained("notes")
    [retried] = await commands.reports(stack, f"dead-letters retry {letter['id']}")
    assert retried["outcome"] == "committed"
    assert await stack.stored(f"{new_id}-2", "notes") == {"id": f"{new_id}-2", "slug": new_id}
    await commands.reports(stack, f"dead-letters show {letter['id']}", code=2)


async def test_a_key_that_was_written_since_is_left_alone(
    stack: Stack, commands: Commands, new_id: str, refused: str
) -> None:
    await stack.set(f"{new_id}-2", {"newer": True}, prefix="notes")
    [retried] = await commands.reports(stack, f"dead-letters retry {refused}", code=1)
    assert retried["outcome"] == "not written"
    assert "written since" in retried["reason"]
    assert (await stack.get(f"{new_id}-2", prefix="notes"))["newer"]
    await commands.reports(stack, f"dead-letters drop {refused}")
