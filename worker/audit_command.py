"""`python -m worker audit`: one audit of each mapping, for a person or a script."""

import sys
from collections.abc import Sequence

from gears.audit_report import AuditReport
from gears.audit_store import AuditStore
from gears.engines import open_engine
from gears.errors import CaptureMissing, ConfigError, CouldNotCompare, OutcomeUnknown, RedisAway
from gears.mapping import Mapping
from gears.mongo import MongoError, open_client, ping
from gears.redis import AWAY, RedisError, connect
from gears.settings import Settings
from worker.audit import Audit, Progress
from worker.groups import reasons
from worker.show import progress, report_table

EQUAL, DRIFT_LEFT, NOT_COMPARED = 0, 1, 2
"""Exit codes."""

_FAILURES = (ConfigError, CouldNotCompare, RedisAway, OutcomeUnknown, CaptureMissing, RedisError, MongoError, *AWAY)


async def audit_all(settings: Settings, mappings: Sequence[Mapping], *, repairing: bool, as_json: bool) -> int:
    """Audit these mappings one after the other and print their reports; returns the exit code.

    Args:
        settings: where the servers are.
        mappings: which mappings.
        repairing: whether to repair drift.
        as_json: one JSON object a mapping on stdout instead of tables.

    Raises:
        ConfigError: a setting can't be used.
    """
    mongo = open_client(settings.mongo_uri, timeout=settings.mongo_timeout)
    worst = EQUAL
    try:
        async with connect(settings.redis_url, timeout=settings.redis_timeout) as redis:
            with progress("comparing") as advance:

                def show(at: Progress) -> None:
                    advance(at.mapping, at.done, at.total)

                for mapping in mappings:
                    report: AuditReport | None = None
                    try:
                        await ping(mongo, timeout=settings.mongo_timeout)
                        engine = await open_engine(redis, mapping, settings.engine)
                        audit = Audit(
                            redis,
                            AuditStore(mongo, mapping),
                            engine,
                            rate=settings.audit_rate,
                            patience=settings.mongo_timeout,
                            repairing=repairing,
                            on_progress=show,
                        )
                        report = await audit.run()
                    except* _FAILURES as errors:
                        sys.stderr.write(f"worker: {mapping.prefix} could not be compared: {reasons(errors)}\n")
                    if report is None:
                        worst = NOT_COMPARED
                        continue
                    worst = max(worst, DRIFT_LEFT if report.left else EQUAL)
                    if as_json:
                        sys.stdout.write(report.model_dump_json() + "\n")
                    else:
                        report_table(report)
    finally:
        mongo.close()
    return worst
