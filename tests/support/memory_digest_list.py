"""The list of the digests of all tags of a registry in memory: pages of the shape of Quay's, read until they end."""

from __future__ import annotations

import json
from collections.abc import Callable, Set
from dataclasses import dataclass
from datetime import datetime, timezone
from typing import Any

from registry_sync.domain.references import RepositoryName, TagName
from registry_sync.errors import LimitExceeded, PaginationError, ProtocolError, RegistryError, RegistrySyncError
from registry_sync.oci.http.options import ClientOptions
from registry_sync.oci.http.rate_limits import Usage
from registry_sync.oci.tag_digests import DigestPairs, TagDigests, reason_of
from support.memory_registry import MemoryRequest

_PAGE_SIZE = 100


@dataclass
class MemoryDigestList:
    """Gives what the real client's reader does; ``ask`` sends one request and gives its body."""

    ask: Callable[[MemoryRequest], bytes]
    usage: Usage
    options: ClientOptions
    host: str

    def read(self, repository: RepositoryName, tags: Set[TagName], most_requests: int) -> TagDigests | None:
        """The digests of ``tags``, and why they are not all; None where they take more requests than that."""
        if -(-len(tags) // _PAGE_SIZE) > most_requests:
            return None
        pairs, as_of, page_count, has_more = DigestPairs(tags), datetime.now(timezone.utc), 0, True
        problem: RegistrySyncError | None = None
        try:
            while has_more:
                if page_count >= most_requests:
                    raise LimitExceeded(f"it has more than {most_requests} pages", limit="digest pages")
                before = len(pairs)
                document = self._page(repository, page_count + 1)
                page_count += 1
                for entry in document["tags"]:
                    pairs.add(entry.get("name"), entry.get("manifest_digest"), entry.get("start_ts"))
                has_more = document["has_additional"]
                if has_more and len(pairs) == before:
                    raise PaginationError(f"{self.host} repeats a page", repository=repository)
        except RegistrySyncError as found:
            problem = found
        is_lasting = problem is not None and not page_count and not problem.is_temporary
        said = None if problem is None else reason_of(problem)
        return TagDigests(pairs.digests, as_of, page_count, said, is_lasting=is_lasting, pushed_at=pairs.pushed_at)

    def _page(self, repository: RepositoryName, number: int) -> dict[str, Any]:
        """A page; requested once more after a temporary error."""
        try:
            return self._page_once(repository, number)
        except RegistrySyncError as problem:
            wait = problem.retry_after_seconds if isinstance(problem, RegistryError) else None
            if not problem.is_temporary or (wait or 0) > self.options.longest_wait_seconds:
                raise
        self.usage.add("retry_count")
        return self._page_once(repository, number)

    def _page_once(self, repository: RepositoryName, number: int) -> dict[str, Any]:
        self.usage.add("digest_page_count")
        data = self.ask(MemoryRequest("GET", "digests", repository, last=str(number)))
        try:
            document = json.loads(data.decode())
        except ValueError:
            document = None
        if not isinstance(document, dict):
            raise ProtocolError(f"list of digests of {self.host} is not a JSON object", host=self.host, status=200)
        if not isinstance(document.get("tags"), list):
            raise ProtocolError(f"{self.host} sends no list of tags with digests", host=self.host, status=200)
        return document
