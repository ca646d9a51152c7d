"""The commands `audit` and `restore`."""

import json
import sys
from dataclasses import asdict

from gears.engines import Engine
from gears.in_mongo.reports.kept_reports import KEPT_AUDITS
from gears.in_mongo.store import Store
from gears.in_redis.client import Redis
from gears.process.settings import Settings
from worker.audit.audit_and_sweep import Audit
from worker.cli.each_mapping import DONE, LEFT, for_each
from worker.cli.restore import Restore
from worker.cli.show import progress, report_lines, report_table


async def audit(settings: Settings, prefix: str | None, *, repairing: bool, as_json: bool) -> int:
    """Audit mappings and print their reports; returns the exit code.

    Args:
        settings: where the servers are.
        prefix: only the mapping with this prefix; None for all.
        repairing: whether to repair drift.
        as_json: one JSON object a mapping on stdout instead of tables.

    Raises:
        ConfigError: a setting can't be used, or there is no such mapping.
    """
    with progress("comparing") as advance:

        async def work(redis: Redis, store: Store, engine: Engine) -> int:
            report = await Audit(
                redis,
                store,
                engine,
                rate=settings.audit_rate,
                patience=settings.mongo_timeout,
                repairing=repairing,
                deleting=settings.cold == "delete",
                because="the command",
                on_progress=advance,
            ).run()
            if as_json:
                sys.stdout.write(report.model_dump_json() + "\n")
            else:
                report_table(report)
            return LEFT if report.left else DONE

        return await for_each(settings, prefix, work, "could not be compared")


async def list_audits(settings: Settings, prefix: str | None, *, as_json: bool) -> int:
    """Print the reports that are kept, the newest first; returns the exit code.

    Args:
        settings: where the servers are.
        prefix: only of the mapping with this prefix; None for all.
        as_json: one JSON object a report on stdout instead of a line.

    Raises:
        ConfigError: a setting can't be used, or there is no such mapping.
    """

    async def work(redis: Redis, store: Store, engine: Engine) -> int:
        reports = await store.reports.audits(limit=KEPT_AUDITS)
        if as_json:
            sys.stdout.writelines(report.model_dump_json() + "\n" for report in reports)
        else:
            sys.stdout.writelines(line + "\n" for line in report_lines(reports))
        return DONE

    return await for_each(settings, prefix, work, "could not be listed")


async def restore(settings: Settings, prefix: str | None, *, as_json: bool) -> int:
    """Give Redis all cold documents and say how many; returns the exit code.

    Args:
        settings: where the servers are.
        prefix: only for the mapping with this prefix; None for all.
        as_json: one JSON object a mapping on stdout instead of a line.

    Raises:
        ConfigError: a setting can't be used, or there is no such mapping.
    """
    with progress("restoring") as advance:

        async def work(redis: Redis, store: Store, engine: Engine) -> int:
            restored = await Restore(redis, store, engine, patience=settings.mongo_timeout, on_progress=advance).run()
            if as_json:
                sys.stdout.write(json.dumps({"mapping": store.mapping.prefix} | asdict(restored)) + "\n")
                return LEFT if restored.left else DONE
            sys.stdout.write(
                f"{store.mapping.prefix}: {restored.given:,} documents given to Redis; "
                f"{restored.present:,} were there; {restored.left:,} left alone, being written to or deleted\n"
            )
            return LEFT if restored.left else DONE

        return await for_each(settings, prefix, work, "could not be restored")
