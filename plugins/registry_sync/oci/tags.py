"""All tags of a repository, over all pages (distribution specification, "Listing Tags").

A listing is complete or an error: a mirror removes what is not listed, so an unreadable page is never read as the end.
Names outside the grammar are skipped and reported.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from datetime import datetime, timezone
from typing import Any

from registry_sync.domain.digests import Digest
from registry_sync.domain.references import RepositoryName, TagName
from registry_sync.errors import (
    InvalidReference,
    LimitExceeded,
    NotFound,
    PaginationError,
    ProtocolError,
    RegistryError,
)
from registry_sync.oci.http.error_mapping import RequestContext, printable, speaks_for_a_registry
from registry_sync.oci.http.link_headers import next_page
from registry_sync.oci.http.origins import Target
from registry_sync.oci.http.requester import Requester
from registry_sync.oci.http.responses import Response
from registry_sync.oci.tag_digests import MAX_PAGE_BYTES, DigestPairs, TagDigests, add_digests_of_images, made_at

PAGE_SIZE = 1000
#: What Google's registries list at most, images as well as tags.
MOST_IMAGES = 10_000
#: Lengths of a page that may be full although it has no link to another one.
SUSPICIOUS_COUNTS = frozenset({50, 100, 1000, 10000})
MAX_PAGES = 2000
MAX_TAGS = 200_000
MAX_EMPTY_PAGES = 3
MAX_SKIPPED = 1000
MAX_SECONDS = 3600


@dataclass(frozen=True)
class TagListing:
    """The tags at ``listed_at`` (when the first page was requested), each once, sorted.

    ``skipped`` has names that are no tags, at most a thousand, made printable. ``digests`` are those that the registry
    listed beside the tags, most registries none: hints as they were at ``digests_at``. ``pushed_at`` is when tags were
    pushed last, by such a list.
    """

    tags: tuple[TagName, ...]
    skipped: tuple[str, ...]
    listed_at: datetime
    page_count: int
    digests: Mapping[TagName, Digest] = field(default_factory=dict)
    digests_at: datetime | None = None
    pushed_at: Mapping[TagName, datetime] = field(default_factory=dict)

    @property
    def digest_list(self) -> TagDigests | None:
        """The digests beside the tags; None without any."""
        return TagDigests(self.digests, self.digests_at or self.listed_at) if self.digests else None


@dataclass(frozen=True)
class _Page:
    """``image_count`` is the number of images that Google's registries list beside the tags, 0 for others."""

    names: list[Any]
    following: Target | None
    document: Mapping[str, Any] = field(default_factory=dict)
    made_at: datetime | None = None
    image_count: int = 0

    @property
    def is_cut(self) -> bool:
        """Whether an unlinked page of one of Google's registries may end at the number that was requested."""
        return self.following is None and PAGE_SIZE in (self.image_count, len(self.names) if self.image_count else 0)


@dataclass
class _Progress:
    tags: set[TagName] = field(default_factory=set)
    skipped: dict[str, None] = field(default_factory=dict)
    pairs: DigestPairs = field(default_factory=DigestPairs)
    digests_at: datetime | None = None
    visited: set[str] = field(default_factory=set)
    page_count: int = 0
    empty_count: int = 0
    started: float = 0.0

    def add(self, names: list[Any]) -> int:
        """How many of ``names`` are new."""
        before = len(self.tags) + len(self.skipped)
        for name in names:
            try:
                self.tags.add(TagName(name))
            except InvalidReference:  # noqa: PERF203 - one invalid name must not lose the others
                if len(self.skipped) < MAX_SKIPPED:
                    self.skipped[printable(str(name)[:128])] = None
        return len(self.tags) + len(self.skipped) - before


def _last_tag(names: list[Any]) -> TagName | None:
    """The last of ``names`` that is a tag: some registries list null or digests as well."""
    for name in reversed(names):
        try:
            return TagName(name)
        except InvalidReference:  # noqa: PERF203 - most often the first try succeeds
            continue
    return None


def list_tags(requester: Requester, repository: RepositoryName) -> TagListing:
    """Every tag of ``repository``.

    Raises :class:`NotFound` with kind ``repository``, :class:`PaginationError`, :class:`RedirectRefused`,
    :class:`LimitExceeded` and what requests raise. A page that disappears restarts the listing, once.
    """
    lister = _Lister(requester, repository)
    try:
        return lister.list()
    except _PageVanished:
        try:
            return lister.list()
        except _PageVanished as problem:
            raise PaginationError(
                f"the tags of {repository} change faster than they can be listed: a page disappeared twice",
                repository=repository,
            ) from problem


def has_tag_list(requester: Requester, repository: RepositoryName) -> bool:
    """Whether a registry serves the tags of ``repository``: a list, or an error in the specification's form.

    One request, with retries. A temporary failure counts as True.
    """
    return _Lister(requester, repository).is_served()


class _PageVanished(Exception):
    """404 for a page after the first: the tag that it continues from was deleted."""


class _Lister:
    def __init__(self, requester: Requester, repository: RepositoryName) -> None:
        self._requester = requester
        self._repository = repository
        self._path = f"/v2/{repository}/tags/list"
        self._request_context = RequestContext("repository", repository)
        self._vanished: set[str] = set()

    def list(self) -> TagListing:
        listed_at = datetime.now(timezone.utc)
        progress = _Progress(started=self._requester.clock.monotonic())
        page: _Page | None = self._first_page(progress)
        while page is not None:
            page = self._next(page, progress)
        return TagListing(
            tuple(sorted(progress.tags)),
            tuple(progress.skipped),
            listed_at,
            progress.page_count,
            progress.pairs.digests,
            min(progress.digests_at or listed_at, listed_at),
            progress.pairs.pushed_at,
        )

    def is_served(self) -> bool:
        target = self._requester.target(f"{self._path}?n=1")
        try:
            self._get(target)
        except RegistryError as problem:
            return problem.is_temporary or speaks_for_a_registry(problem)
        return True

    def _first_page(self, progress: _Progress) -> _Page:
        target = self._requester.target(f"{self._path}?n={PAGE_SIZE}")
        try:
            page = self._fetch(target, progress)
        except (ProtocolError, NotFound) as problem:
            # Some registries refuse a page size above their own maximum.
            if problem.status not in (400, 405) and "UNSUPPORTED" not in problem.codes:
                raise
            page = self._fetch(self._requester.target(self._path), progress)
        if page.is_cut:
            page = self._fetch(self._requester.target(f"{self._path}?n={MOST_IMAGES}"), progress)
            if page.following is None and MOST_IMAGES in (page.image_count, len(page.names)):
                raise self._pagination_error(
                    f"lists {MOST_IMAGES:,} images, the most that it lists, and does not say whether it has more"
                )
        self._add(page, progress)
        return page

    def _add(self, page: _Page, progress: _Progress) -> int:
        """How many names of ``page`` are new."""
        added = progress.add(page.names)
        add_digests_of_images(progress.pairs, page.document)
        progress.digests_at = min(filter(None, (progress.digests_at, page.made_at)), default=None)
        if len(progress.tags) > MAX_TAGS:
            raise LimitExceeded(f"{self._repository} has more than {MAX_TAGS} tags", limit="tags")
        return added

    def _next(self, page: _Page, progress: _Progress) -> _Page | None:
        if page.following is None:
            return self._probe(page, progress)
        following = self._fetch(page.following, progress, is_first=False)
        added = self._add(following, progress)
        if not following.names:
            progress.empty_count += 1
        elif not added:
            raise self._pagination_error("repeats a page")
        if progress.empty_count > MAX_EMPTY_PAGES and following.following is not None:
            raise self._pagination_error("links to page after page without tags")
        return following

    def _probe(self, page: _Page, progress: _Progress) -> _Page | None:
        """The page after one that looks full and links to none; None when it was the last.

        404 means the end, or that the tag was deleted meanwhile; the repeated listing decides which.
        """
        if len(page.names) not in SUSPICIOUS_COUNTS:
            return None
        continuation = _last_tag(page.names)
        if continuation is None:
            raise self._pagination_error("has no tag to continue from at the end of a full page")
        target = self._requester.target(f"{self._path}?n={len(page.names)}&last={continuation}")
        if target.url in progress.visited:
            return None
        try:
            following = self._fetch(target, progress, is_first=False)
        except _PageVanished:
            if target.url in self._vanished:
                return None
            self._vanished.add(target.url)
            raise
        return following if self._add(following, progress) else None

    def _fetch(self, target: Target, progress: _Progress, *, is_first: bool = True) -> _Page:
        if target.url in progress.visited:
            raise self._pagination_error("links to a page that was listed before")
        if progress.page_count >= MAX_PAGES:
            raise LimitExceeded(f"{self._repository} has more than {MAX_PAGES} pages of tags", limit="tag pages")
        if self._requester.clock.monotonic() - progress.started > MAX_SECONDS:
            raise LimitExceeded(
                f"the tags of {self._repository} take longer than an hour to list", limit="listing time"
            )
        progress.visited.add(target.url)
        try:
            page = self._get(target)
        except NotFound as problem:
            if is_first:
                raise
            raise _PageVanished from problem
        except ProtocolError as problem:
            if is_first or problem.status == 200:
                raise
            raise self._pagination_error(f"does not serve ({problem.status}) a page that it linked to") from problem
        progress.page_count += 1
        self._requester.usage.add("tag_page_count")
        return page

    def _get(self, target: Target) -> _Page:
        return self._requester.send("GET", target, self._request_context, {"Accept": "application/json"}, self._read)

    def _read(self, response: Response) -> _Page:
        following = next_page(response.header("Link"), response.target)
        document = response.read_json(MAX_PAGE_BYTES, "tag list")
        host = response.target.origin.netloc
        if document.get("errors"):
            raise response.protocol_error(f"{host} responds 200 with errors for a tag list")
        if "tags" not in document:
            raise response.protocol_error(f"{host} sends a tag list without the field tags")
        names = document["tags"]
        if names is not None and not isinstance(names, list):
            raise response.protocol_error(f"{host} sends tags that are not a list")
        images = document.get("manifest")
        if not isinstance(images, dict):
            return _Page(names or [], following)
        now = datetime.now(timezone.utc)
        return _Page(names or [], following, document, made_at(now, response), len(images))

    def _pagination_error(self, problem: str) -> PaginationError:
        host = self._requester.target("/").origin.netloc
        return PaginationError(
            f"the tags of {self._repository} cannot be listed: {host} {problem}",
            repository=self._repository,
            host=host,
        )
