"""Reports that are kept in MongoDB: what audits found, and what Redis was given back."""

from motor.motor_asyncio import AsyncIOMotorCollection

from gears.contract.mapping import Mapping
from gears.in_mongo.client import Document
from gears.in_mongo.reports.audit_report import AuditReport
from gears.in_mongo.reports.given_back_report import RewindReport, Rewinds

KEPT_AUDITS = 100
"""How many reports of audits are kept for each mapping."""


class Reports:
    """One mapping's reports.

    Args:
        audits: where those of audits are kept.
        rewinds: where those are kept of what Redis had forgotten.
        mapping: the mapping.
    """

    def __init__(
        self,
        audits: "AsyncIOMotorCollection[Document]",
        rewinds: "AsyncIOMotorCollection[Document]",
        mapping: Mapping,
    ) -> None:
        self._audits = audits
        self._rewinds = rewinds
        self._mine = {"mapping": mapping.prefix}

    async def keep_audit(self, report: AuditReport) -> None:
        """Keep this report, and the `KEPT_AUDITS` latest of this mapping."""
        await self._audits.insert_one(report.model_dump())
        newest_first = self._audits.find(self._mine, {"started_at": 1}).sort("started_at", -1)
        for oldest in await newest_first.skip(KEPT_AUDITS).limit(1).to_list(1):
            await self._audits.delete_many({**self._mine, "started_at": {"$lte": oldest["started_at"]}})

    async def audits(self, *, limit: int) -> list[AuditReport]:
        """The latest reports of audits, the newest first."""
        found = self._audits.find(self._mine).sort("started_at", -1).limit(limit)
        return [AuditReport.model_validate(report) for report in await found.to_list(limit)]

    async def last_audit(self) -> AuditReport | None:
        """The latest of them; None when there was no audit yet."""
        return next(iter(await self.audits(limit=1)), None)

    async def keep_rewind(self, report: RewindReport) -> None:
        """Keep this report; a loss between the same two batches is the same one."""
        found = {"_id": f"{report.mapping} {report.watermark} {report.checkpoint}"}
        seen = {"found_at": report.found_at}
        known = report.model_dump(exclude={"found_at"})
        await self._rewinds.update_one(found, {"$setOnInsert": seen, "$set": known}, upsert=True)

    async def rewinds(self) -> Rewinds:
        """How often Redis had forgotten something, and the last time."""
        found = await self._rewinds.find_one(self._mine, sort=[("found_at", -1)])
        return Rewinds(
            count=await self._rewinds.count_documents(self._mine),
            last=None if found is None else RewindReport.model_validate(found),
        )
