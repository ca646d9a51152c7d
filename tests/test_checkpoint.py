"""What a checkpoint says of what was written beside it: all of it, or nothing."""

from typing import Any

import pytest

from gears.checkpoint import Checkpoint
from gears.stream import ZERO, EntryId

CHECKPOINT = Checkpoint(EntryId(7, 1), EntryId(8, 0), EntryId(6, 0), certain=EntryId(5, 0), beside=("a", "b"))


def stored(checkpoint: Checkpoint, held: dict[str, Any] | None = None) -> dict[str, Any]:
    """What MongoDB holds after the update."""
    update, held = checkpoint.update(), held or {}
    return {**held, **update["$set"], **{name: max(held.get(name, 0), v) for name, v in update["$max"].items()}}


def test_it_is_read_as_it_was_written() -> None:
    assert Checkpoint.parse(stored(CHECKPOINT)) == CHECKPOINT


@pytest.mark.parametrize(("held", "known"), [("v", 9), ("newest", 9)])
def test_what_was_written_beside_another_commit_says_nothing_of_this_one(held: str, known: int) -> None:
    newer = {held: EntryId(known, 0).version}
    assert Checkpoint.parse(stored(CHECKPOINT, newer)).beside is None


@pytest.mark.parametrize("beside", [None, ("x" * 40_000, "y" * 40_000)])
def test_ids_that_are_too_many_to_keep_are_not_known(beside: tuple[str, ...] | None) -> None:
    large = Checkpoint(EntryId(7, 1), EntryId(8, 0), beside=beside)
    update = stored(large)
    assert Checkpoint.parse(update).beside is None
    assert len(str(update)) < 1000


def test_nothing_written_beside_it_is_known() -> None:
    assert Checkpoint.parse(stored(Checkpoint(EntryId(7, 1), EntryId(8, 0), beside=()))).beside == ()


def test_one_of_an_earlier_version_of_this_program_is_taken_for_certain() -> None:
    assert Checkpoint.parse({"v": EntryId(7, 1).version}) == Checkpoint(
        EntryId(7, 1), EntryId(7, 1), ZERO, certain=EntryId(7, 1)
    )
