"""``VerifyBlobsOperator``: compares the blob store with the database and the digests, and repairs it."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING, Any

from airflow.sdk import BaseOperator

from registry_sync.errors import BlobMissing
from registry_sync.operators.stage import RegistryRetryPolicy, Stage, open_stage
from registry_sync.operators.task_values import as_flag, as_number

if TYPE_CHECKING:
    from airflow.sdk import Context

    from registry_sync.domain.storage_reports import Repair, Verification
    from registry_sync.sync.maintenance.verify import VerifyOptions

_MIB = 1024 * 1024
_SHOWN_FAILURES = 5


class VerifyBlobsOperator(BaseOperator):
    """Compares database and blob store, reads a share of the blobs, and fetches again what is broken or missing.

    Fails when blobs stay lost, with the reasons; retries when a registry may respond later.

    :param share: share of the blobs to read, 0 to 1; those that were not read for the longest time come first
    :param mib_per_second: the maximum read rate; None for no limit
    :param repair: whether to fetch lost blobs again from the remotes
    """

    template_fields: Sequence[str] = ("share", "mib_per_second", "repair")
    ui_color = "#e0e8ef"

    def __init__(
        self,
        *,
        share: float | str = 1.0,
        mib_per_second: float | str | None = None,
        repair: bool | str = True,
        **kwargs: Any,
    ) -> None:
        kwargs.setdefault("retry_policy", RegistryRetryPolicy())
        super().__init__(**kwargs)
        self.share = share
        self.mib_per_second = mib_per_second
        self.repair = repair

    def execute(self, context: Context) -> dict[str, Any]:
        """Counts of verified blobs, of findings by kind, and of blobs fetched again."""
        from registry_sync.domain.quantities import format_count
        from registry_sync.domain.storage_reports import Repair
        from registry_sync.sync.maintenance.verify import verify_blobs

        with open_stage(context) as stage:
            options, repairs = self._options(), as_flag(self.repair, "repair")
            found = verify_blobs(stage.database, stage.blobs, options, report=self.log.info)
            repaired = self._repair(stage, found) if repairs else Repair()
            lost = repaired.failures if repairs else dict.fromkeys(found.lost, "not repaired")
            if lost:
                if repaired.transient is not None and not stage.is_last_try:
                    raise repaired.transient
                shown = "; ".join(f"{digest}: {why}" for digest, why in list(lost.items())[:_SHOWN_FAILURES])
                raise BlobMissing(f"lost {format_count(len(lost), 'blob')}: {shown}")
        return {
            "verified_count": found.verified.count,
            "verified_bytes": found.verified.size_bytes,
            "found": {kind.value: count for kind, count in found.counts.items()},
            "repaired_count": repaired.fetched.count,
            "repaired_bytes": repaired.fetched.size_bytes,
        }

    def _repair(self, stage: Stage, found: Verification) -> Repair:
        from registry_sync.hooks.clients import open_client
        from registry_sync.sync.maintenance.repair import repair_blobs

        # Blobs that an earlier try recorded as missing and did not fetch are still missing.
        digests = {*found.lost, *stage.database.blob_checks.lacking()}
        return repair_blobs(stage.database, stage.blobs, open_client, sorted(digests), report=self.log.info)

    def _options(self) -> VerifyOptions:
        from registry_sync.errors import ConfigurationError
        from registry_sync.sync.maintenance.verify import VerifyOptions

        share, rate = as_number(self.share, "share"), as_number(self.mib_per_second, "mib_per_second")
        if share is None:
            raise ConfigurationError("share: give how much to read, from 0 for nothing to 1 for everything")
        return VerifyOptions(share, None if rate is None else rate * _MIB).checked()
