"""The digests of all tags at once, where a registry lists them: hints that a tag has not moved, and nothing else.

The OCI specification lists names only. Google adds the digests to that list; others have an API of their own, described
by :data:`~registry_sync.domain.known_registries.DIGEST_APIS`. Every pair of tag and digest counts alone, so that a list
that ends early, is refused or cannot be read costs requests and no content: problems are reported, not raised.

Pages come from one host, without redirects. Credentials go to the registry itself alone.
"""

from __future__ import annotations

import math
import re
from collections.abc import Callable, Mapping, Set
from dataclasses import dataclass, field
from datetime import datetime, timedelta, timezone
from typing import Any
from urllib.parse import quote

from registry_sync.domain.digests import Digest
from registry_sync.domain.known_registries import (
    DIGEST_APIS,
    DigestAccess,
    DigestApi,
    DigestList,
    digest_list_by_challenge,
    known_registry,
)
from registry_sync.domain.references import RegistryUrl, RepositoryName, TagName
from registry_sync.errors import InvalidReference, LimitExceeded, PaginationError, RegistryError, RegistrySyncError
from registry_sync.oci.auth.authenticator import Authenticator
from registry_sync.oci.http.error_mapping import RequestContext
from registry_sync.oci.http.link_headers import next_page
from registry_sync.oci.http.options import ClientOptions
from registry_sync.oci.http.origins import Origin, Target
from registry_sync.oci.http.requester import Requester, backoff_seconds
from registry_sync.oci.http.responses import Response

MAX_PAGE_BYTES = 16 * 1024 * 1024
#: A list that takes longer is left, with the pairs until then.
MAX_SECONDS = 300


@dataclass(frozen=True)
class TagDigests:
    """The digests that a registry lists, and why the list ended early.

    ``digests`` omits tags whose digest is missing, unreadable or not the same throughout the list. ``pushed_at`` says
    when tags were pushed last, where the registry does. ``as_of`` is when the oldest page was made, before its request
    where a cache kept it. ``problem`` is None for a whole list. With ``is_lasting`` the API does not exist or is closed
    to this reader, which another sync would find as well.
    """

    digests: Mapping[TagName, Digest]
    as_of: datetime
    page_count: int = 0
    problem: str | None = None
    is_lasting: bool = False
    pushed_at: Mapping[TagName, datetime] = field(default_factory=dict)


@dataclass
class DigestPairs:
    """Collects pairs of the tags in ``wanted``, None for all; a tag that was given two digests has none."""

    wanted: Set[TagName] | None = None
    pushed_at: dict[TagName, datetime] = field(default_factory=dict)
    _found: dict[TagName, Digest | None] = field(default_factory=dict)

    def add(self, name: Any, digest: Any, pushed: Any = None) -> None:
        """Adds a pair as it was received, with the time of its push; what cannot be read is skipped."""
        try:
            tag, value = TagName(name), None if digest is None else Digest(digest)
        except InvalidReference:
            return
        if self.wanted is not None and tag not in self.wanted:
            return
        if self._found.setdefault(tag, value) != value:
            self._found[tag] = None
        at = read_time(pushed)
        if at is not None:
            self.pushed_at[tag] = max(at, self.pushed_at.get(tag, at))

    def __len__(self) -> int:
        return len(self._found)

    @property
    def digests(self) -> dict[TagName, Digest]:
        """The pairs."""
        return {tag: digest for tag, digest in self._found.items() if digest is not None}


def add_digests_of_images(pairs: DigestPairs, document: Mapping[str, Any]) -> None:
    """Adds the digests that Google's registries put into a list of tags.

    They are the keys of an object ``manifest``, whose values name the tags. Another ``manifest`` is ignored.
    """
    images = document.get("manifest")
    if not isinstance(images, dict):
        return
    for digest, image in images.items():
        names = image.get("tag") if isinstance(image, dict) else None
        for name in names if isinstance(names, list) else ():
            pairs.add(name, digest, image.get("timeUploadedMs"))


_FRACTION = re.compile(r"(?<=\.\d{6})\d+")
_SHORT_FRACTION = re.compile(r"\.(\d{1,6})(?!\d)")
#: A number of seconds since 1970 from here on is one of milliseconds.
_MILLISECONDS_FROM = 100_000_000_000
#: Digits of the milliseconds until the year 2286; a longer number counts something else.
_MOST_DIGITS = 13
_EPOCH = datetime(1970, 1, 1, tzinfo=timezone.utc)


def read_time(given: Any) -> datetime | None:
    """A time as registries write it: seconds or milliseconds since 1970, or as RFC 3339; None for anything else.

    0, 1970 and the first year, which programs write for a time that is not known, are None as well.
    """
    if not isinstance(given, int | str) or isinstance(given, bool):
        return None
    try:
        text = str(given).strip()
        if text.isascii() and text.isdigit():
            if len(text) > _MOST_DIGITS:
                return None
            number = int(text)
            read = datetime.fromtimestamp(number / 1000 if number >= _MILLISECONDS_FROM else number, timezone.utc)
        else:
            text = _SHORT_FRACTION.sub(lambda found: f".{found[1]:0<6}", _FRACTION.sub("", text))
            read = datetime.fromisoformat(f"{text[:-1]}+00:00" if text[-1:] in ("Z", "z") else text)
            read = read.replace(tzinfo=timezone.utc) if read.tzinfo is None else read.astimezone(timezone.utc)
    except (ValueError, OverflowError, OSError):
        return None
    return read if read > _EPOCH else None


def made_at(requested_at: datetime, response: Response) -> datetime:
    """When the content of ``response`` was made: earlier than its request where a cache kept it."""
    return requested_at - timedelta(seconds=response.age_seconds)


@dataclass
class _Progress:
    pairs: DigestPairs
    as_of: datetime
    started: float
    page_count: int = 0


class DigestListReader:
    """Reads the lists of one registry."""

    def __init__(self, requester: Requester, authenticator: Authenticator, options: ClientOptions) -> None:
        self._requester = requester
        self._authenticator = authenticator
        self._options = options
        self._host = requester.target("/").origin.netloc

    @property
    def are_used(self) -> bool:
        """Whether lists of this registry may prove anything: not those of a cache, which a HEAD would refresh."""
        is_cache = self._options.namespace is not None or known_registry(self._host).is_cache
        return self._options.digest_list is not DigestList.OFF and not is_cache

    @property
    def has_api(self) -> bool:
        """Whether an API of this registry is known and allowed."""
        return self._api() is not None

    def read(self, repository: RepositoryName, tags: Set[TagName], most_requests: int) -> TagDigests | None:
        """The digests of ``tags``, those that the registry lists for ``repository``; raises nothing.

        None without a request where no API is known or allowed, and where it would take more than ``most_requests``.
        """
        api = self._api()
        if api is None or self._request_count(api, len(tags)) > most_requests:
            return None
        now = datetime.now(timezone.utc)
        progress = _Progress(DigestPairs(tags), now, self._requester.clock.monotonic())
        problem: RegistrySyncError | None = None
        try:
            self._refuse_cache(api, repository)
            page: Target | None = self._target(api, repository, api.path, 1)
            while page is not None:
                if progress.page_count >= most_requests:
                    raise LimitExceeded(f"it has more than {most_requests} pages", limit="digest pages")
                page = self._read_page(api, repository, page, progress)
        except RegistrySyncError as found:
            problem = found
        return TagDigests(
            progress.pairs.digests,
            progress.as_of,
            progress.page_count,
            None if problem is None else reason_of(problem),
            is_lasting=problem is not None and not progress.page_count and not problem.is_temporary,
            pushed_at=progress.pairs.pushed_at,
        )

    def _api(self) -> DigestApi | None:
        if not self.are_used:
            return None
        chosen: DigestList | None = self._options.digest_list
        if chosen is DigestList.AUTO:
            chosen = known_registry(self._host).digest_list or self._by_challenge()
        return None if chosen is None else DIGEST_APIS[chosen]

    def _by_challenge(self) -> DigestList | None:
        selected = self._authenticator.selected
        if selected is None or selected.scheme != "bearer":
            return None
        try:
            realm = Target.parse(selected.challenge.realm, relative_to=selected.sent_by)
        except ValueError:
            return None
        return digest_list_by_challenge(selected.challenge.service, realm.path.partition("?")[0])

    @staticmethod
    def _request_count(api: DigestApi, tag_count: int) -> int:
        return math.ceil(tag_count / api.page_size) + (api.cache_path is not None)

    def _target(self, api: DigestApi, repository: RepositoryName, path: str, page: int) -> Target:
        first, _, rest = repository.partition("/")
        if "{rest" in path and not rest:
            raise PaginationError(f"{repository} is no name that this API has", repository=repository)
        once = quote(rest, safe="")
        filled = path.format(name=repository, first=first, rest=once, rest_twice=quote(once, safe=""), page=page)
        return Target(self._origin(api), filled)

    def _origin(self, api: DigestApi) -> Origin:
        url = self._options.digest_list_url or (f"https://{api.host}" if api.host else None)
        return self._requester.target("/").origin if url is None else Origin.of(RegistryUrl.parse(url))

    def _refuse_cache(self, api: DigestApi, repository: RepositoryName) -> None:
        """Raises :class:`PaginationError` when the repository is a cache of another registry."""
        if api.cache_path is None:
            return
        target = self._target(api, repository, api.cache_path, 1)
        document = self._get(api, repository, target, _read)
        if isinstance(document, dict) and document.get(api.cache_key):
            raise PaginationError(
                f"{self._host} keeps {repository} as a cache of another registry", repository=repository
            )

    def _read_page(
        self, api: DigestApi, repository: RepositoryName, target: Target, progress: _Progress
    ) -> Target | None:
        """Adds the pairs of a page; returns the next one, None after the last."""
        if self._requester.clock.monotonic() - progress.started > MAX_SECONDS:
            raise LimitExceeded(f"it takes longer than {MAX_SECONDS} seconds", limit="digest listing time")

        def read(response: Response) -> tuple[Any, list[Any], str | None]:
            document = _read(response)
            progress.as_of = min(progress.as_of, made_at(datetime.now(timezone.utc), response))
            return document, _entries(api, document, response), response.header("Link")

        document, entries, link = self._get(api, repository, target, read)
        progress.page_count += 1
        before = len(progress.pairs)
        seen = sum(_add(progress.pairs, api, entry) for entry in entries)
        following: Target | None = None
        if "{page}" not in api.path:
            following = next_page(link, target)
        elif document.get(api.more) if api.more else len(entries) >= api.page_size:
            following = self._target(api, repository, api.path, progress.page_count + 1)
        if following is not None and (following == target or (seen and len(progress.pairs) == before)):
            raise PaginationError(f"{target.origin.netloc} repeats a page", repository=repository)
        return following

    def _get(self, api: DigestApi, repository: RepositoryName, target: Target, read: Callable[[Response], Any]) -> Any:
        """The result of ``read``; requested once more after a temporary error, where the wait for that is short."""
        try:
            return self._get_once(api, repository, target, read)
        except RegistrySyncError as problem:
            requested = problem.retry_after_seconds if isinstance(problem, RegistryError) else None
            wait = backoff_seconds(1) if requested is None else requested
            if not problem.is_temporary or wait > self._options.longest_wait_seconds:
                raise
        self._requester.usage.add("retry_count")
        self._requester.clock.sleep(wait)
        return self._get_once(api, repository, target, read)

    def _get_once(
        self, api: DigestApi, repository: RepositoryName, target: Target, read: Callable[[Response], Any]
    ) -> Any:
        self._requester.usage.add("digest_page_count")
        headers = {"Accept": "application/json", "Cache-Control": "no-cache"}
        context = RequestContext("repository", repository)
        if api.access is DigestAccess.CHALLENGE:
            response = self._requester.send_aside(target, context, headers, actions=api.scope)
        else:
            password = self._authenticator.password() if api.access is DigestAccess.BASIC else None
            response = self._requester.send_with(target, context, headers, authorization=password)
        try:
            return read(response)
        except BaseException:
            response.abandon()
            raise


def _read(response: Response) -> dict[str, Any] | list[Any]:
    document = response.read_json_value(MAX_PAGE_BYTES, "list of digests")
    if isinstance(document, dict) and document.get("errors"):
        raise response.protocol_error(f"{response.target.origin.netloc} responds 200 with errors")
    return document


def _entries(api: DigestApi, document: Any, response: Response) -> list[Any]:
    for key in api.entries:
        document = document.get(key) if isinstance(document, dict) else None
    if not isinstance(document, list):
        raise response.protocol_error(f"{response.target.origin.netloc} sends no list of tags with digests")
    return document


def _add(pairs: DigestPairs, api: DigestApi, entry: Any) -> int:
    """Adds the pairs of one entry; returns how many tags of ``pairs`` it names."""
    if not isinstance(entry, dict):
        return 0
    is_temporary = any(entry.get(key) for key in api.temporary)
    digest = None if is_temporary else entry.get(api.digest)
    named = [entry] if api.tags is None else entry.get(api.tags)
    tags = [tag for tag in named if isinstance(tag, dict)] if isinstance(named, list) else []
    for tag in tags:
        times = () if api.pushed is None else (tag.get(api.pushed), entry.get(api.pushed))
        pushed = next((time for time in times if read_time(time) is not None), None)
        pairs.add(tag.get(api.tag), digest, pushed)
    return sum(pairs.wanted is None or tag.get(api.tag) in pairs.wanted for tag in tags)


def reason_of(problem: RegistrySyncError) -> str:
    """The reason for people: the status of a response, else the message."""
    if isinstance(problem, RegistryError) and problem.status not in (None, 200):
        codes = f" ({', '.join(problem.codes)})" if problem.codes else ""
        return f"{problem.host} responds {problem.status}{codes}"
    return problem.message
