"""The tally of an audit: each key is counted once, as it was found, and some are kept as examples."""

from collections.abc import Iterable, Sequence
from collections.abc import Mapping as Dict

from gears.contract.version import shown
from gears.in_mongo.reports.audit_report import MAX_EXAMPLES, AuditReport, Example
from gears.progress.compare import Kind
from worker.audit.prove_drift import Proof

_REMEMBERED = 100_000
"""How many counted keys are remembered, since SCAN may return a key more than once."""


class Tally:
    """Counts what an audit finds.

    Args:
        report: where to.
    """

    def __init__(self, report: AuditReport) -> None:
        self._report = report
        self._counted: set[bytes] = set()

    def equal(self) -> None:
        """One key looks equal."""
        self._count(Kind.EQUAL)

    def proven(self, proofs: Sequence[Proof], *, unsettled: int) -> list[Proof]:
        """Count what was proven of keys, and those of which nothing could be; returns what wasn't counted before."""
        proofs = [proof for proof in proofs if proof.key not in self._counted]
        self._remember(proof.key for proof in proofs if proof.verdict.kind is not Kind.EQUAL)
        for proof in proofs:
            if proof.verdict.kind is not None:
                self._count(proof.verdict.kind)
        self._report.unsettled += unsettled
        self._report.compared += unsettled
        return proofs

    def show(self, proofs: Iterable[Proof], reasons: Dict[bytes, str]) -> None:
        """Keep some of these as examples.

        Args:
            proofs: what was proven.
            reasons: why keys could not be repaired.
        """
        for proof in proofs:
            self._show(proof, reasons.get(proof.key, ""))

    def _count(self, kind: Kind) -> None:
        self._report.compared += 1
        setattr(self._report, kind, getattr(self._report, kind) + 1)

    def _remember(self, keys: Iterable[bytes]) -> None:
        if len(self._counted) > _REMEMBERED:
            self._counted.clear()
        self._counted.update(keys)

    def _show(self, proof: Proof, reason: str) -> None:
        kind = proof.verdict.kind
        if kind is None or kind is Kind.EQUAL:
            return
        examples = self._report.examples.setdefault(kind, [])
        if len(examples) < MAX_EXAMPLES:
            version = proof.mongo_version
            examples.append(
                Example(
                    key=proof.key.decode(errors="backslashreplace"),
                    redis=str(proof.newest),
                    mongodb=None if version is None else shown(version),
                    fields=list(proof.verdict.fields),
                    reason=reason,
                )
            )
