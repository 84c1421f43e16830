"""Names of repositories, tags and registries (OCI distribution specification, "Pulling manifests").

Text is checked once, here, before it may stand in a URL, a file name or a table. Docker Hub's aliases are
resolved here too, so that the rest of the code knows one registry under one address.

Which tags of a repository are wanted: exact names and globs to include, and the same to exclude.

Tags by which signatures, attestations and bills of material are found beside the manifests they speak of.

The fallback tag is the distribution specification's ("Referrers Tag Schema"); the suffixed ones are cosign's.
"""

from __future__ import annotations

import fnmatch
import re
from collections.abc import Iterable
from dataclasses import dataclass, field
from functools import cached_property
from urllib.parse import urlsplit

from registry_sync.domain.digests import Digest
from registry_sync.domain.known_registries import DOCKER_HUB, known_registry, registry_called
from registry_sync.errors import InvalidReference

_COMPONENT = r"[a-z0-9]+(?:(?:\.|_|__|-+)[a-z0-9]+)*"
_NAME = re.compile(rf"{_COMPONENT}(?:/{_COMPONENT})*")
_TAG = re.compile(r"[a-zA-Z0-9_][a-zA-Z0-9._-]{0,127}")
_GLOB_CHARACTERS = re.compile(r"[*?\[]")
_PATTERN = re.compile(r"[a-zA-Z0-9_.*?\[\]!-]{1,128}")
_HOST = re.compile(r"(?:[a-zA-Z0-9](?:[a-zA-Z0-9.-]*[a-zA-Z0-9])?|\[[0-9a-fA-F:.]+\])")
#: Host and name together are at most this long, as clients expect (distribution specification, note on <name>).
MAX_NAME_LENGTH = 255

#: For messages that say what an address looks like.
_EXAMPLE = f"https://{DOCKER_HUB.host}"


def _shown(text: object) -> str:
    """``text`` for a message, without what may be a password in a URL that stands where it does not belong."""
    shown = str(text)
    return f"…{shown[shown.rindex('@') :][:80]}" if "@" in shown and ":" in shown else repr(shown[:80])


class RepositoryName(str):
    """The name of a repository on a registry, such as ``library/hello-world``. Raises :class:`InvalidReference`."""

    __slots__ = ()

    def __new__(cls, text: object) -> RepositoryName:
        if not isinstance(text, str) or len(text) > MAX_NAME_LENGTH or not _NAME.fullmatch(text):
            raise InvalidReference(
                f"{_shown(text)} is not a repository name: lower-case letters and digits, parts joined by . _ "
                f"or -, components by /, at most {MAX_NAME_LENGTH} characters; such as library/hello-world"
            )
        return super().__new__(cls, text)


class TagName(str):
    """The name of a tag, such as ``latest``. Raises :class:`InvalidReference`."""

    __slots__ = ()

    def __new__(cls, text: object) -> TagName:
        if not isinstance(text, str) or not _TAG.fullmatch(text):
            raise InvalidReference(
                f"{_shown(text)} is not a tag: letters, digits, . _ and -, "
                "not starting with . or -, at most 128 characters"
            )
        return super().__new__(cls, text)


class TagPattern(str):
    """A tag name, or a glob of tag names (``*``, ``?``, ``[ab]``, ``[!ab]``). Raises :class:`InvalidReference`."""

    __slots__ = ()

    def __new__(cls, text: object) -> TagPattern:
        if not isinstance(text, str) or not _PATTERN.fullmatch(text):
            raise InvalidReference(f"{str(text)[:80]!r} is neither a tag nor a glob of tags")
        pattern = super().__new__(cls, text)
        if not pattern.is_glob:
            TagName(text)
        return pattern

    @classmethod
    def parse_all(cls, entries: Iterable[str]) -> tuple[TagPattern, ...]:
        """Checks every entry; blanks around entries and empty entries are dropped."""
        return tuple(cls(entry.strip()) for entry in entries if entry.strip())

    @property
    def is_glob(self) -> bool:
        """Whether it may stand for several tags."""
        return _GLOB_CHARACTERS.search(self) is not None


class _Matcher:
    """Matches whole names, with case, against patterns that were compiled once."""

    def __init__(self, patterns: Iterable[TagPattern]) -> None:
        self.exact = dict.fromkeys(pattern for pattern in patterns if not pattern.is_glob)
        globs = [fnmatch.translate(pattern) for pattern in patterns if pattern.is_glob]
        self._globs = re.compile("|".join(globs)) if globs else None

    def __call__(self, name: str) -> bool:
        return name in self.exact or (self._globs is not None and self._globs.match(name) is not None)


@dataclass(frozen=True)
class TagFilter:
    """``include`` None means every tag, an empty tuple none; ``exclude`` is applied after it.

    An entry is a tag name or a glob, matched against the whole name, with case.
    """

    include: tuple[TagPattern, ...] | None = None
    exclude: tuple[TagPattern, ...] = ()

    @classmethod
    def parse(cls, include: Iterable[str] | None = None, exclude: Iterable[str] | None = None) -> TagFilter:
        """Checks every entry; blanks around entries, empty ones and repeats are dropped.

        Raises :class:`InvalidReference`.
        """
        return cls(None if include is None else _each_once(include), _each_once(exclude or ()))

    @cached_property
    def literal_tags(self) -> tuple[TagName, ...] | None:
        """The tags asked for, when all are exact names, so that no listing is needed; else None."""
        if self.include is None or any(pattern.is_glob for pattern in self.include):
            return None
        return self.exact_names

    @cached_property
    def exact_names(self) -> tuple[TagName, ...]:
        """The entries to include that are names, each once, in their order, as far as they are not excluded."""
        return tuple(TagName(name) for name in self._is_included.exact if not self._is_excluded(name))

    def wants(self, tag: TagName) -> bool:
        """Whether ``tag`` is asked for, by its name, by a glob or with all."""
        return (self.include is None or self._is_included(tag)) and not self._is_excluded(tag)

    def left_out_by(self, tag: TagName) -> str | None:
        """The filter that does not let ``tag`` in, ``include_tags`` or ``exclude_tags``; None when it is wanted."""
        if not self.allows(tag):
            return "exclude_tags"
        return None if self.wants(tag) else "include_tags"

    def allows(self, tag: TagName) -> bool:
        """Whether ``tag`` is not excluded."""
        return not self._is_excluded(tag)

    def select(self, tags: Iterable[TagName]) -> list[TagName]:
        """The wanted ones of ``tags``, each once, sorted."""
        return sorted({tag for tag in tags if self.wants(tag)})

    @cached_property
    def _is_included(self) -> _Matcher:
        return _Matcher(self.include or ())

    @cached_property
    def _is_excluded(self) -> _Matcher:
        return _Matcher(self.exclude)


def _each_once(entries: Iterable[str]) -> tuple[TagPattern, ...]:
    return tuple(dict.fromkeys(TagPattern.parse_all(entries)))


@dataclass(frozen=True)
class Reference:
    """What a manifest is asked by: a tag, a digest, or both (then the digest is what counts)."""

    tag: TagName | None
    digest: Digest | None

    @classmethod
    def parse(cls, text: str) -> Reference:
        """``tag``, ``algorithm:encoded`` or ``tag@algorithm:encoded``. Raises :class:`InvalidReference`."""
        tag, at, digest = text.partition("@")
        if at:
            return cls(TagName(tag) if tag else None, Digest(digest))
        return cls(None, Digest(text)) if ":" in text else cls(TagName(text), None)

    def __str__(self) -> str:
        return self.digest or self.tag or ""


@dataclass(frozen=True)
class RegistryUrl:
    """The root of a registry: ``scheme``, ``host`` in lower case, ``port`` or None for the scheme's own.

    A registry answers at ``/v2/`` of its host; a path is refused, because clients would not look there. ``written`` is
    the text that it was parsed from, for whoever wrote it; two that were written differently may be the same.
    """

    scheme: str
    host: str
    port: int | None = None
    written: str = field(default="", compare=False, repr=False)

    @classmethod
    def parse(cls, text: str) -> RegistryUrl:
        """``https://host[:port]``; a bare ``host[:port]`` means https. Docker Hub's aliases become its API host.

        Raises :class:`InvalidReference` for other schemes, user information, a path other than ``/`` or ``/v2/``,
        queries, and for ``hub.docker.com``, which is another API.
        """
        stripped = text.strip()
        try:
            parts = urlsplit(stripped if "://" in stripped else f"https://{stripped}")
            host, port = (parts.hostname or "").lower(), parts.port
        except ValueError:
            # Where a password begins and ends in it cannot be told, so nothing of it is repeated.
            raise InvalidReference(
                f"url is not the URL of a registry: host or port cannot be read; such as {_EXAMPLE}"
            ) from None
        shown = f"{parts.scheme}://{host}"
        if parts.scheme not in ("http", "https"):
            raise InvalidReference(
                f"{shown[:200]!r} is not the URL of a registry: the scheme is https, or http for a plain one"
            )
        if parts.username is not None or parts.password is not None:
            raise InvalidReference(f"{shown!r}: credentials belong in an Airflow connection, not in the URL")
        if not _HOST.fullmatch(f"[{host}]" if ":" in host else host):
            raise InvalidReference(f"url is not the URL of a registry: it has no usable host; such as {_EXAMPLE}")
        if parts.path.rstrip("/") not in ("", "/v2") or parts.query or parts.fragment:
            raise InvalidReference(
                f"{shown!r}: give only scheme, host and port; the repository belongs in upstream_name"
            )
        known = registry_called(host)
        if host in known.websites:
            raise InvalidReference(f"{host} is {known.name}'s website; its registry is https://{known.host}")
        if host in known.aliases:
            host = known.host
        is_default = port == {"https": 443, "http": 80}[parts.scheme]
        return cls(parts.scheme, host, None if is_default else port, written=text)

    @property
    def netloc(self) -> str:
        """``host[:port]``, an IPv6 address in brackets."""
        host = f"[{self.host}]" if ":" in self.host else self.host
        return f"{host}:{self.port}" if self.port else host

    def upstream_name(self, name: str) -> RepositoryName:
        """``name`` as this registry calls it: on Docker Hub a one-component name gets ``library/``."""
        namespace = known_registry(self.host).official_namespace
        if namespace is not None and "/" not in name:
            name = f"{namespace}/{name}"
        if len(self.netloc) + 1 + len(name) > MAX_NAME_LENGTH:
            raise InvalidReference(f"host and repository name are longer than {MAX_NAME_LENGTH} characters together")
        return RepositoryName(name)

    def __str__(self) -> str:
        return f"{self.scheme}://{self.netloc}"


COSIGN_SUFFIXES = (".sig", ".att", ".sbom")
_NOT_OF_A_TAG = re.compile(r"[^a-zA-Z0-9._-]")
_NAMED_AFTER = re.compile(r"sha256-(?P<encoded>[0-9a-f]{64})(?P<suffix>\.(sig|att|sbom))?")
_REFERRER_TAG = re.compile(r"[a-z0-9._-]{1,32}-[a-zA-Z0-9_=-]{32,64}(\.(sig|att|sbom))?")


def fallback_tag(digest: Digest) -> TagName:
    """The tag under which a registry without the referrers API keeps the index of what refers to ``digest``."""
    text = f"{digest.algorithm[:32]}-{digest.encoded[:64]}"
    return TagName(_NOT_OF_A_TAG.sub("-", text))


def referrer_tag_names(digest: Digest) -> tuple[TagName, ...]:
    """The tags under which something may be kept that belongs to ``digest``."""
    fallback = fallback_tag(digest)
    return (fallback, *(TagName(f"{fallback}{suffix}") for suffix in COSIGN_SUFFIXES))


def looks_like_a_referrer_tag(tag: TagName) -> bool:
    """Whether ``tag`` has the form of one that belongs to a digest."""
    return _REFERRER_TAG.fullmatch(tag) is not None


def referrer_tags(tags: Iterable[TagName], digests: Iterable[Digest]) -> list[TagName]:
    """Those of ``tags`` that belong to one of ``digests``, sorted; the tags are a whole listing, unfiltered."""
    wanted = {name for digest in digests for name in referrer_tag_names(digest)}
    return sorted({tag for tag in tags if tag in wanted})


def subject_by_name(tag: TagName, digest: Digest | None) -> Digest | None:
    """The manifest that ``tag``, which stands for ``digest``, belongs to by its name; None when it is an image's own.

    An image's own is also a tag that is named after the very manifest that it stands for.
    """
    found = _NAMED_AFTER.fullmatch(tag)
    if found is None:
        return None
    subject = Digest(f"sha256:{found['encoded']}")
    return None if subject == digest and not found["suffix"] else subject
