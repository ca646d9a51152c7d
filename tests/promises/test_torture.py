"""A short torture on one engine: no promise is broken, and the same seed draws the same schedule."""

from itertools import islice
from pathlib import Path

import pytest

from tests.torture.history import Outcome, Write
from tests.torture.report import text, write_report
from tests.torture.run import torture
from tests.torture.schedule import FAULTS, HTTP_KINDS, plan, steps

SEED = 8
SECONDS = 15.0


@pytest.mark.timeout(300)
async def test_no_promise_is_broken(tmp_path: Path) -> None:
    run = await torture(tmp_path, "gears2", seed=SEED, seconds=SECONDS, rate=150)
    write_report(run, tmp_path)
    assert run.violations == [], text(run)
    assert run.faults, "nothing was hurt"
    acknowledged = [e for e in run.recorder.events if isinstance(e, Write) and e.outcome is Outcome.ACKNOWLEDGED]
    assert len(acknowledged) > 50, text(run)


def test_the_same_seed_draws_the_same_schedule() -> None:
    assert plan(SEED, 600) == plan(SEED, 600)
    assert plan(SEED, 600) != plan(SEED + 1, 600)
    first, again = (list(islice(steps(SEED, "http-0", HTTP_KINDS), 500)) for _ in range(2))
    assert first == again
    assert first != list(islice(steps(SEED, "http-1", HTTP_KINDS), 500))


def test_an_hour_has_every_kind_of_fault_and_operation() -> None:
    assert {fault.kind for fault in plan(SEED, 3600)} == set(FAULTS)
    assert {step.kind for step in islice(steps(SEED, "http-0", HTTP_KINDS), 1000)} == set(HTTP_KINDS)
