"""What came of it: tables, the bars, a plot."""

from collections.abc import Iterable, Sequence
from dataclasses import asdict, dataclass
from statistics import median
from typing import Any
from xml.sax.saxutils import escape

from tests.bench.load import Result
from tests.bench.stage import Cpu

COLOURS = {
    "dual write": "#b0b0b0",
    "cache-aside": "#d0c090",
    "rgsync-style": "#d09090",
    "bare": "#808080",
    "writethrough": "#2060c0",
    "respond-async": "#60a0e0",
    "plain client": "#90d0b0",
}
_ROW, _WIDTH, _LEFT = 16, 560, 250


@dataclass(frozen=True, slots=True)
class Line:
    """One contestant under one load: medians of the rounds, milliseconds.

    Args:
        cell: the load.
        who: the contestant.
        per_second: answers per second.
        lowest: the slowest round's.
        highest: the fastest round's.
        p50: median latency.
        p99: 99th percentile.
        cpu: of the contestant's own processes, per answer.
        everything: of all that ran, per answer; see `Cpu`.
        bad: answers that weren't 2xx.
    """

    cell: str
    who: str
    per_second: float
    lowest: float
    highest: float
    p50: float
    p99: float
    cpu: float
    everything: float
    bad: int


def line(cell: str, who: str, rounds: Sequence[tuple[Result, Cpu]]) -> Line:
    """The medians of these rounds."""
    rates = [sum(result.answers.values()) / result.seconds for result, _ in rounds]
    answers = [item for result, _ in rounds for item in result.answers.items()]
    return Line(
        cell,
        who,
        round(median(rates)),
        round(min(rates)),
        round(max(rates)),
        median(result.p50 for result, _ in rounds),
        median(result.p99 for result, _ in rounds),
        median(cpu.own for _, cpu in rounds),
        median(cpu.everything for _, cpu in rounds),
        sum(count for status, count in answers if status not in ("200", "201", "202", "+")),
    )


def table(lines: Iterable[Line]) -> str:
    """In Markdown."""
    rows = [
        "| load | who | answers/s (slowest to fastest round) | p50 ms | p99 ms | CPU ms | all CPU ms |",
        "|---|---|--:|--:|--:|--:|--:|",
    ]
    for each in lines:
        who = f"{each.who} ({each.bad} not 2xx)" if each.bad else each.who
        rate = f"{each.per_second:,.0f} ({each.lowest:,.0f} to {each.highest:,.0f})"
        latency, cpu = f"{each.p50:.2f} | {each.p99:.2f}", f"{each.cpu:.3f} | {each.everything:.3f}"
        rows.append(f"| {each.cell} | {who} | {rate} | {latency} | {cpu} |")
    return "\n".join(rows)


def bars(lines: Iterable[Line]) -> list[dict[str, Any]]:
    """What was aimed at, each with what came of it."""
    by = {(each.cell, each.who): each for each in lines}

    def ratio(name: str, cell: str, over: str, attribute: str, aim: float, *, least: bool = True) -> dict[str, Any]:
        ours, theirs = getattr(by[cell, "writethrough"], attribute), getattr(by[cell, over], attribute)
        value = round(ours / theirs, 2)
        return {
            "bar": name,
            "aim": f"{'>=' if least else '<='} {aim}",
            "is": value,
            "met": (value >= aim) == least or value == aim,
        }

    slow = "write, 64 clients, +5 ms"
    p99, p50 = by[slow, "writethrough"].p99, by[slow, "dual write"].p50
    return [
        ratio("writes at 64 clients over dual write", "write, 64 clients", "dual write", "per_second", 2),
        ratio("the same with 5 ms", slow, "dual write", "per_second", 4),
        ratio("latency at 1 client over dual write", "write, 1 clients", "dual write", "p50", 1.5, least=False),
        {"bar": "p99 at 64 clients, 5 ms", "aim": f"< dual write's p50, {p50:.1f}", "is": p99, "met": p99 < p50},
        ratio("reads at 64 clients over a bare handler", "read, 64 clients", "bare", "per_second", 0.9),
        ratio("one hot key over dual write", "write one hot key, 64 clients", "dual write", "per_second", 5),
    ]


def plot(lines: Sequence[Line]) -> str:
    """Answers per second as an SVG: a group of bars for each load, each group on its own scale."""
    parts, y, cell = [], 10, ""
    for each in lines:
        if each.cell != cell:
            cell, y = each.cell, y + _ROW
            parts.append(f'<text x="0" y="{y}" font-weight="bold">{escape(cell)}</text>')
        y += _ROW
        longest = max(other.per_second for other in lines if other.cell == cell) or 1
        width = each.per_second / longest * (_WIDTH - _LEFT)
        parts.append(f'<text x="{_LEFT - 8}" y="{y}" text-anchor="end">{escape(each.who)}</text>')
        parts.append(f'<rect x="{_LEFT}" y="{y - 11}" width="{width:.1f}" height="12" fill="{COLOURS[each.who]}"/>')
        parts.append(f'<text x="{_LEFT + width + 5:.1f}" y="{y}">{each.per_second:,.0f}/s</text>')
    style = 'font-family="sans-serif" font-size="12"'
    head = f'<svg xmlns="http://www.w3.org/2000/svg" width="{_WIDTH + 80}" height="{y + 20}" {style}>'
    return "\n".join([head, '<rect width="100%" height="100%" fill="white"/>', *parts, "</svg>\n"])


def as_dicts(lines: Iterable[Line]) -> list[dict[str, Any]]:
    """For JSON."""
    return [asdict(each) for each in lines]
