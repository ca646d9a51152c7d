"""What a run came to: JSON for machines, text for people, the history for whoever looks into a violation."""

import json
from collections import Counter
from pathlib import Path
from typing import Any

from tests.torture.check import Violation
from tests.torture.history import Event, Outcome, Read, Write, line, save
from tests.torture.run import Run

_SHOWN = 10


def summary(run: Run) -> dict[str, Any]:
    """The figures."""
    writes = [event for event in run.recorder.events if isinstance(event, Write)]
    return {
        "engine": run.engine,
        "seed": run.seed,
        "seconds": run.seconds,
        "rate": run.rate,
        "operations": len(run.recorder.events),
        "reads": len(run.recorder.events) - len(writes),
        "writes": len(writes),
        "acknowledged": sum(write.acknowledged is not None for write in writes),
        "by_outcome": {outcome.value: sum(w.outcome is outcome for w in writes) for outcome in Outcome},
        "by_answer": dict(Counter(f"{w.kind}: {w.detail[:60]}" for w in writes if w.client.startswith("http"))),
        "faults": dict(sorted(run.faults.items())),
        "faults_done": sum(run.faults.values()),
        "faults_planned": len(run.schedule),
        "faults_left_out": run.left_out,
        "ready": round(run.ready, 3),
        "recovered_after": run.recovered,
        "audit": {k: v for k, v in run.audit.items() if isinstance(v, int)},
        "violations": [
            {"promise": v.promise, "what": v.what, "key": v.key, "history": [json.loads(line(e)) for e in v.history]}
            for v in run.violations
        ],
    }


def write_report(run: Run, folder: Path) -> None:
    """Put summary, history and schedule into a folder."""
    (folder / "report.json").write_text(json.dumps(summary(run), indent=2) + "\n")
    (folder / "schedule.txt").write_text("".join(f"{fault}\n" for fault in run.schedule))
    save(folder / "history.jsonl", [*run.recorder.events, *run.lost, *run.uncaptured])


def text(run: Run) -> str:
    """The same for people."""
    figures = summary(run)
    outcomes = ", ".join(f"{count} {outcome}" for outcome, count in figures["by_outcome"].items() if count)
    faults = ", ".join(f"{count} x {kind}" for kind, count in figures["faults"].items())
    recovered = "never" if run.recovered is None else f"{run.recovered:.1f} s after the last fault"
    lines = [
        f"engine {run.engine}, seed {run.seed}, {run.seconds:g} s, at most {run.rate:g} operations/s",
        f"{figures['writes']} writes, {figures['acknowledged']} known to be in MongoDB; {figures['reads']} states seen",
        f"writes: {outcomes}",
        f"faults: {figures['faults_done']} ({faults})",
        *(f"left out: {kind}" for kind in run.left_out),
        f"ready {run.ready:.0%} of the time; well again: {recovered}",
        f"violations: {len(run.violations)}",
    ]
    for violation in run.violations[:_SHOWN]:
        lines += _explain(violation)
    return "\n".join(lines)


def _explain(violation: Violation) -> list[str]:
    promise = f"promise {violation.promise}" if violation.promise else "the API"
    return [f"\n{promise}, {violation.key}: {violation.what}", *(f"  {_event(event)}" for event in violation.history)]


def _event(event: Event) -> str:
    times = f"{event.start:9.3f} - {event.end:9.3f}  {event.client:8}  {event.kind:14}"
    if isinstance(event, Read):
        return f"{times} saw {event.value or 'nothing'} in {event.side}"
    known = "" if event.acknowledged is None else f", known to be in MongoDB at {event.acknowledged:.3f}"
    return f"{times} {event.value or 'delete'}: {event.outcome}{known} ({event.detail})"
