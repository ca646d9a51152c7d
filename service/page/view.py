"""What the page shows, as JSON: from an inspection, without any value of a document."""

from collections.abc import Mapping, Sequence
from typing import Any

from gears.in_mongo.dead_letters import KeptLetter
from gears.in_mongo.reports.audit_report import AuditReport
from gears.in_mongo.reports.given_back_report import Rewinds
from service.page.parts import parts_of
from service.page.rates import Rates
from service.watch.gather_state import Inspection, MappingState

Json = dict[str, Any]


def servers_view(inspection: Inspection) -> Json:
    """Whether each server answers, how fast, and why not."""
    return {
        name: {"error": inspection.errors.get(name), "seconds": inspection.round_trips.get(name)}
        for name in ("redis", "mongo")
    }


def mapping_view(state: MappingState, rates: Rates | None) -> Json:
    """One mapping; what isn't known is null."""
    backlog = state.backlog
    worker = backlog.worker if backlog else None
    return {
        "prefix": state.mapping.prefix,
        "namespace": state.mapping.namespace,
        "engine": state.engine,
        "captured": rates.captured if rates else None,
        "committed": rates.committed if rates else None,
        "waiting": backlog.entries if backlog else None,
        "lag": backlog.lag if backlog else None,
        "parts": parts_of(state),
        "audit": _audit(state.last_audit) if state.last_audit else None,
        "rewinds": _rewinds(state.rewinds) if state.rewinds else None,
        "warming": {"done": worker.warmed, "total": worker.to_warm} if worker and worker.to_warm else None,
        "dead_letters": state.dead_letters,
    }


def _audit(report: AuditReport) -> Json:
    return {
        "at": report.started_at.timestamp(),
        "because": report.because,
        "seconds": report.seconds,
        "compared": report.compared,
        "differed": report.missing + report.stale + report.ahead,
        "repaired": report.repaired,
        "left": report.left,
        "drift_since": report.drift_since.timestamp() if report.drift_since else None,
        "warnings": report.warnings,
    }


def _rewinds(rewinds: Rewinds) -> Json:
    last = rewinds.last
    return {
        "count": rewinds.count,
        "last": last
        and {
            "at": last.found_at.timestamp(),
            "done_at": last.restored_at.timestamp() if last.restored_at else None,
            "forgotten": last.documents + last.deletes,
            "restored": last.restored,
        },
    }


def audits_view(reports: Mapping[str, Sequence[AuditReport]]) -> list[Json]:
    """The latest audits of all mappings, the newest first."""
    found = [{"prefix": prefix} | _audit(report) for prefix, some in reports.items() for report in some]
    return sorted(found, key=lambda audit: float(audit["at"]), reverse=True)


def letters_view(letters: Mapping[str, Sequence[KeptLetter]]) -> list[Json]:
    """The latest dead letters of all mappings, the newest first."""
    found = [
        {
            "prefix": prefix,
            "id": letter.id,
            "key": letter.key,
            "at": letter.at.timestamp(),
            "reason": letter.reason,
            "bytes": letter.size,
        }
        for prefix, some in letters.items()
        for letter in some
    ]
    return sorted(found, key=lambda letter: float(letter["at"]), reverse=True)
