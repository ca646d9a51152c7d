"""An audit for people: how far it is while it runs, and what it found."""

import sys
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager

from rich.console import Console
from rich.markup import escape
from rich.progress import BarColumn, TaskProgressColumn, TextColumn, TimeRemainingColumn
from rich.progress import Progress as Bars
from rich.table import Table

from gears.cli.command_line import printable
from gears.in_mongo.reports.audit_report import AuditReport
from worker.progress import Progress

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
        yield _plain(verb)
        return
    columns = (TextColumn("{task.description}", markup=False), BarColumn(), TaskProgressColumn(show_speed=True))
    with Bars(*columns, TextColumn("{task.fields[rate]}"), TimeRemainingColumn(), console=console) as bar:
        tasks = {}

        def advance(prefix: str, done: int, total: int) -> None:
            if prefix not in tasks:
                tasks[prefix] = bar.add_task(f"{verb} {prefix}", rate="")
            task = next(task for task in bar.tasks if task.id == tasks[prefix])
            rate = f"{task.speed:,.0f}/s" if task.speed else ""
            bar.update(task.id, completed=done, total=total, rate=rate)

        yield advance


def _plain(verb: str) -> Advance:
    pace = Progress()

    def advance(prefix: str, done: int, total: int) -> None:
        said = pace.said(done, total)
        if said is not None:
            far = f"{said.done:,} of about {said.total:,}, {said.per_second:,}/s, {said.seconds_left:,} s left"
            sys.stderr.write(f"{verb} {prefix}: {far}\n")
            sys.stderr.flush()

    return advance


def report_table(report: AuditReport) -> None:
    """Print a report on stdout."""
    console = Console()
    if not console.is_terminal:
        sys.stdout.writelines(line + "\n" for line in _plain_lines(report))
        return
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


def _plain_lines(report: AuditReport) -> Iterator[str]:
    """The same for what is no terminal: a line each, however long."""
    yield printable(f"{report.mapping}: {_outcome(report)}, {report.documents_per_second:,.0f}/s")
    yield ", ".join(f"{name} {getattr(report, name):,}" for name in _COUNTS)
    yield from map(printable, report.warnings)
    for kind, found in report.examples.items():
        for example in found:
            fields = f", fields {', '.join(example.fields)}" if example.fields else ""
            reason = f", not repaired because {example.reason}" if example.reason else ""
            seen = f"Redis as of {example.redis}, MongoDB {example.mongodb or '-'}"
            yield printable(f"{kind} {example.key}: {seen}{fields}{reason}")


def report_lines(reports: Sequence[AuditReport]) -> Iterator[str]:
    """A line for each report."""
    for report in reports:
        counts = ", ".join(f"{name} {getattr(report, name):,}" for name in _COUNTS if getattr(report, name))
        said = (
            f"{report.mapping}  {report.started_at:%Y-%m-%d %H:%M:%S}  {report.because}: {_outcome(report)}; {counts}"
        )
        yield printable(said.removesuffix("; "))


def _outcome(report: AuditReport) -> str:
    state = f"{report.left:,} keys differ" if report.left else "no drift left"
    return f"{state}; {report.compared:,} compared in {report.seconds:.1f} s"


def _plainly(text: str) -> str:
    """What others wrote, as markup that shows just that."""
    return escape(printable(text))
