"""What each tag points to, by one HEAD, asked once for a run: what succeeded is kept for another try of the task.

A registry that stops to answer, or wants a wait, fails the task. What it answered until then is in the database, and
the next try asks for the rest, unless too much time has passed: a listing is of one moment.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager, suppress
from dataclasses import dataclass, field
from datetime import datetime, timedelta

from registry_sync.domain.digests import Digest
from registry_sync.domain.moments import utc_now
from registry_sync.domain.quantities import format_count
from registry_sync.domain.records import RemoteSpec
from registry_sync.domain.references import TagName
from registry_sync.domain.runs import KeptHead, SyncRun
from registry_sync.errors import NotFound, RegistryError, RegistrySyncError
from registry_sync.sync.parallel import for_each
from registry_sync.sync.ports import KeptHeads, RegistryClient
from registry_sync.sync.progress import Progress
from registry_sync.sync.refusals import MAX_PROBES, Refusals
from registry_sync.sync.verdicts import Verdict, verdict

#: Older digests are asked for again; a list of tags may take as long.
LONGEST_KEPT = timedelta(hours=1)
#: How often digests are kept; most listings have ended by then and keep none.
KEEP_SECONDS = 5.0


@dataclass
class TagHeads:
    """The HEADs of one try of a listing. ``asked_at`` is when the first digest in use was asked for, None for none."""

    client: RegistryClient
    kept: KeptHeads
    run: SyncRun
    remote: RemoteSpec
    tell: Callable[[str], None]
    asked_at: datetime | None = None
    _earlier: Mapping[TagName, KeptHead] = field(default_factory=dict)
    _new: dict[TagName, Digest | None] = field(default_factory=dict)
    _new_at: datetime = field(default_factory=utc_now)
    _kept_at: float = field(default_factory=time.monotonic)

    def __post_init__(self) -> None:
        self._earlier = self.kept.since(self.run.id, utc_now() - LONGEST_KEPT)

    @contextmanager
    def kept_on_failure(self) -> Iterator[None]:
        """Around the rest of the try: what was answered until it fails is kept for the next."""
        try:
            yield
        except BaseException:
            with suppress(RegistrySyncError):
                self._keep()
            raise

    def resolve(self, names: list[TagName]) -> dict[TagName, Digest | None]:
        """Tag to digest, None where HEAD does not say; tags that the registry does not have are left out.

        Raises the client's errors for a registry that does not answer.
        """
        known = {tag: self._earlier[tag] for tag in names if tag in self._earlier}
        heads = {tag: head.digest for tag, head in known.items()}
        if known:
            self.tell(f"{format_count(len(known), 'tag')} of {len(names):,} were asked for by an earlier try")
            self._note(min(head.asked_at for head in known.values()))
        self._ask([tag for tag in names if tag not in known], heads)
        return {tag: heads[tag] for tag in names if tag in heads}

    def _ask(self, names: list[TagName], heads: dict[TagName, Digest | None]) -> None:
        progress = Progress(self.tell, "tag", len(names))
        refusals = Refusals(self.client, self.remote)
        has_listing = self.remote.tag_filter.literal_tags is None

        def done(tag: TagName, digest: Digest | None) -> None:
            refusals.note_served(tag)
            heads[tag] = self._new[tag] = digest
            if time.monotonic() - self._kept_at >= KEEP_SECONDS:
                self._keep()
            progress.add(1)

        def failed(tag: TagName, error: RegistrySyncError) -> None:
            # A password that nothing was given for yet is not tried on one tag after another: that locks accounts.
            if has_listing or not isinstance(error, RegistryError) or error.status != 401:
                refusals.others = lambda: names[:: max(1, len(names) // MAX_PROBES)]
            error = refusals.settled(error, tag)
            if isinstance(error, NotFound) and error.kind == "repository":
                raise error
            if isinstance(error, NotFound):
                if has_listing:
                    self.tell(f"tag {tag} is gone since the listing")
            elif verdict(error, is_last_try=False) is Verdict.HOLD:
                heads[tag] = None
            else:
                raise error
            progress.add(1)

        if not self._new:
            self._new_at = utc_now()
        # Without a listing before it the first goes alone: a wrong password is sent once, not by every thread.
        alone = 0 if has_listing else 1
        for part in (names[:alone], names[alone:]):
            for_each(
                lambda tag: self.client.head_manifest(self.remote.upstream, tag).digest,
                part,
                threads=self.remote.download_concurrency,
                done=done,
                failed=failed,
            )

    def _keep(self) -> None:
        new, self._new = self._new, {}
        self.kept.keep(self.run.id, new, self._new_at, began=self.run.listing_began)
        self._new_at, self._kept_at = utc_now(), time.monotonic()

    def _note(self, asked_at: datetime) -> None:
        self.asked_at = min(asked_at, self.asked_at or asked_at)
