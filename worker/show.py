"""An audit for people: how far it is while it runs, and what it found."""

from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from time import monotonic

from rich.console import Console
from rich.markup import escape
from rich.progress import BarColumn, Progress, TaskProgressColumn, TextColumn, TimeRemainingColumn
from rich.table import Table

from gears.audit_report import AuditReport

_PLAIN_EVERY = 5.0

_COUNTS = (
    *("equal", "missing", "stale", "ahead", "repaired", "refused", "cold", "deleted", "foreign", "legacy", "unsettled"),
)

Advance = Callable[[str, int, int], None]
"""Called with a mapping's prefix, the steps done and about how many there are."""


@contextmanager
def progress(verb: str) -> Iterator[Advance]:
    """Show progress on stderr: a bar on a terminal, otherwise a line every few seconds.

    Args:
        verb: what is done, such as "comparing".
    """
    console = Console(stderr=True)
    if not console.is_terminal:
        yield _plain(console, verb)
        return
    columns = (TextColumn("{task.description}", markup=False), BarColumn(), TaskProgressColumn(show_speed=True))
    with Progress(*columns, TextColumn("{task.fields[rate]}"), TimeRemainingColumn(), console=console) as bar:
        tasks = {}

        def advance(prefix: str, done: int, total: int) -> None:
            if prefix not in tasks:
                tasks[prefix] = bar.add_task(f"{verb} {prefix}", rate="")
            task = next(task for task in bar.tasks if task.id == tasks[prefix])
            rate = f"{task.speed:,.0f}/s" if task.speed else ""
            bar.update(task.id, completed=done, total=total, rate=rate)

        yield advance


def _plain(console: Console, verb: str) -> Advance:
    started = said = monotonic()

    def advance(prefix: str, done: int, total: int) -> None:
        nonlocal said
        if monotonic() - said < _PLAIN_EVERY or not done:
            return
        said = monotonic()
        left = (said - started) * (total - done) / done
        rate = done / (said - started)
        console.print(
            f"{verb} {prefix}: {done:,} of about {total:,}, {rate:,.0f}/s, {left:.0f} s left",
            soft_wrap=True,
            markup=False,
        )

    return advance


def report_table(report: AuditReport) -> None:
    """Print a report on stdout."""
    console = Console()
    outcome = f"[bold red]{_outcome(report)}[/]" if report.left else _outcome(report)
    console.print(f"[bold]{_plainly(report.mapping)}[/]: {outcome}, {report.documents_per_second:,.0f}/s")
    console.print(", ".join(f"{name} {getattr(report, name):,}" for name in _COUNTS))
    for warning in report.warnings:
        console.print(f"[bold yellow]{_plainly(warning)}[/]")
    if not report.examples:
        return
    examples = Table("kind", "key", "Redis as of", "MongoDB", "fields", "not repaired because")
    for kind, found in report.examples.items():
        for example in found:
            cells = (example.key, example.redis, example.mongodb or "-", ", ".join(example.fields), example.reason)
            examples.add_row(kind, *map(_plainly, cells))
    console.print(examples)


def report_lines(reports: Sequence[AuditReport]) -> Iterator[str]:
    """A line for each report."""
    for report in reports:
        counts = ", ".join(f"{name} {getattr(report, name):,}" for name in _COUNTS if getattr(report, name))
        said = (
            f"{report.mapping}  {report.started_at:%Y-%m-%d %H:%M:%S}  {report.because}: {_outcome(report)}; {counts}"
        )
        yield _printable(said.removesuffix("; "))


def _outcome(report: AuditReport) -> str:
    state = f"{report.left:,} keys differ" if report.left else "no drift left"
    return f"{state}; {report.compared:,} compared in {report.seconds:.1f} s"


def _plainly(text: str) -> str:
    """What others wrote, as markup that shows just that."""
    return escape(_printable(text))


def _printable(text: str) -> str:
    """What others wrote, without what a terminal would obey."""
    return "".join(c if c.isprintable() else c.encode("unicode_escape").decode() for c in text)
