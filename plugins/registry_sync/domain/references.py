"""Names of repositories, tags and registries (OCI distribution specification, "Pulling manifests").

Text is validated once, here, before it is used in a URL, a file name or a table. Docker Hub's aliases are resolved
here too, so that the rest of the code sees one address per registry.

Tag filters select tags of a repository: exact names and globs to include, and the same to exclude.

Referrer tags hold signatures, attestations and SBOMs of a manifest. The fallback tag is the distribution
specification's ("Referrers Tag Schema"); the suffixed ones are cosign's.
"""

from __future__ import annotations

import fnmatch
import re
from collections.abc import Iterable
from dataclasses import dataclass, field
from functools import cached_property, lru_cache
from urllib.parse import urlsplit

from registry_sync.domain.digests import Digest
from registry_sync.domain.known_registries import DOCKER_HUB, known_registry, registry_called
from registry_sync.errors import InvalidReference

_COMPONENT = r"[a-z0-9]+(?:(?:\.|_|__|-+)[a-z0-9]+)*"
_NAME = re.compile(rf"{_COMPONENT}(?:/{_COMPONENT})*")
_TAG = re.compile(r"[a-zA-Z0-9_][a-zA-Z0-9._-]{0,127}")
_GLOB_CHARACTERS = re.compile(r"[*?\[]")
_PATTERN = re.compile(r"[a-zA-Z0-9_.*?\[\]!-]{1,128}")
_WITH_BRACES = re.compile(r"[a-zA-Z0-9_.*?\[\]!{},-]{1,1000}")
#: What the braces of one pattern may stand for together.
MAX_ALTERNATIVES = 100
_HOST = re.compile(r"(?:[a-zA-Z0-9](?:[a-zA-Z0-9.-]*[a-zA-Z0-9])?|\[[0-9a-fA-F:.]+\])")
#: Host and name together are at most this long, as clients expect (distribution specification, note on <name>).
MAX_NAME_LENGTH = 255

#: A valid address, for messages.
_EXAMPLE = f"https://{DOCKER_HUB.host}"


def _shown(text: object) -> str:
    """``text`` for a message, without a password that a URL in the wrong field may contain."""
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
    """A tag name, or a glob: ``*``, ``?``, ``[ab]``, ``[!ab]``, and ``{a,b}`` for one or the other.

    ``{17,16}-alpine`` is two names. Raises :class:`InvalidReference`.
    """

    __slots__ = ()

    def __new__(cls, text: object) -> TagPattern:
        if not isinstance(text, str) or not _WITH_BRACES.fullmatch(text):
            raise _no_pattern(text)
        for alternative in _alternatives(text):
            if not _PATTERN.fullmatch(alternative):
                raise _no_pattern(text)
            if _GLOB_CHARACTERS.search(alternative) is None:
                TagName(alternative)
        return super().__new__(cls, text)

    @classmethod
    def parse_all(cls, entries: Iterable[str]) -> tuple[TagPattern, ...]:
        """Validates every entry; surrounding blanks and empty entries are dropped."""
        return tuple(cls(entry.strip()) for entry in entries if entry.strip())

    @property
    def is_glob(self) -> bool:
        """Whether it may match tags that it does not name."""
        return any(_GLOB_CHARACTERS.search(alternative) for alternative in self.alternatives)

    @property
    def alternatives(self) -> tuple[str, ...]:
        """The names and globs without braces that it stands for."""
        return _alternatives(self)


def split_patterns(text: str) -> list[str]:
    """The entries of a text with commas between them: ``3.*, v{1,2}`` has two. Blanks around them are dropped."""
    entries, depth = [""], 0
    for character in text:
        depth += (character == "{") - (character == "}")
        if character == "," and depth < 1:
            entries.append("")
        else:
            entries[-1] += character
    return [entry for part in entries if (entry := part.strip())]


def _no_pattern(text: object, why: str = "") -> InvalidReference:
    return InvalidReference(f"{str(text)[:80]!r} is neither a tag nor a glob of tags{why}")


@lru_cache(maxsize=4096)
def _alternatives(text: str) -> tuple[str, ...]:
    """``text`` with each ``{a,b}`` replaced by one or the other, each once. Raises :class:`InvalidReference`."""
    if "{" not in text and "}" not in text and "," not in text:
        return (text,)
    before, parts, after = _first_braces(text)
    rest = _alternatives(after)
    chosen = [choice for part in parts for choice in _alternatives(part)]
    if len(chosen) * len(rest) > MAX_ALTERNATIVES:
        raise _no_pattern(text, f": its braces stand for more than {MAX_ALTERNATIVES}")
    return tuple(dict.fromkeys(f"{before}{choice}{end}" for choice in chosen for end in rest))


def _first_braces(text: str) -> tuple[str, list[str], str]:
    """The text before the first braces, their parts, and the text behind them."""
    before, parts, depth = text.partition("{")[0], [""], 0
    if before == text or "}" in before or "," in before:
        raise _no_pattern(text, ": a comma or } without {")
    for place in range(len(before), len(text)):
        character = text[place]
        depth += (character == "{") - (character == "}")
        if depth == 0:
            return before, parts, text[place + 1 :]
        if character == "," and depth == 1:
            parts.append("")
        elif place > len(before):
            parts[-1] += character
    raise _no_pattern(text, ": { without }")


class _Matcher:
    """Matches whole names, case-sensitively, against compiled patterns."""

    def __init__(self, patterns: Iterable[TagPattern]) -> None:
        names = dict.fromkeys(name for pattern in patterns for name in pattern.alternatives)
        self.exact = {name: None for name in names if _GLOB_CHARACTERS.search(name) is None}
        globs = [fnmatch.translate(name) for name in names if name not in self.exact]
        self._globs = re.compile("|".join(globs)) if globs else None

    def __call__(self, name: str) -> bool:
        return name in self.exact or (self._globs is not None and self._globs.match(name) is not None)


@dataclass(frozen=True)
class TagFilter:
    """``include`` None means every tag, an empty tuple none; ``exclude`` is applied after it.

    An entry is a tag name or a glob, matched against the whole name, case-sensitively.
    """

    include: tuple[TagPattern, ...] | None = None
    exclude: tuple[TagPattern, ...] = ()

    @classmethod
    def parse(cls, include: Iterable[str] | None = None, exclude: Iterable[str] | None = None) -> TagFilter:
        """Validates every entry; surrounding blanks, empty entries and duplicates are dropped.

        Raises :class:`InvalidReference`.
        """
        return cls(None if include is None else _each_once(include), _each_once(exclude or ()))

    @cached_property
    def literal_tags(self) -> tuple[TagName, ...] | None:
        """The included tags when all are exact names, so that no listing is needed; else None."""
        if self.include is None or any(pattern.is_glob for pattern in self.include):
            return None
        return self.exact_names

    @cached_property
    def exact_names(self) -> tuple[TagName, ...]:
        """The included entries that are exact names and not excluded, in order and without duplicates."""
        return tuple(TagName(name) for name in self._is_included.exact if not self._is_excluded(name))

    def wants(self, tag: TagName) -> bool:
        """Whether ``tag`` is included and not excluded."""
        return self.includes(tag) and self.allows(tag)

    def includes(self, tag: TagName) -> bool:
        """Whether ``tag`` is included, excluded or not."""
        return self.include is None or self._is_included(tag)

    def excluding_filter(self, tag: TagName) -> str | None:
        """The filter that excludes ``tag``, ``include_tags`` or ``exclude_tags``; None when it is selected."""
        if not self.allows(tag):
            return "exclude_tags"
        return None if self.wants(tag) else "include_tags"

    def allows(self, tag: TagName) -> bool:
        """Whether ``tag`` is not excluded."""
        return not self._is_excluded(tag)

    def select(self, tags: Iterable[TagName]) -> list[TagName]:
        """The selected ones of ``tags``, sorted and without duplicates."""
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
    """How a manifest is requested: by a tag, a digest, or both (then the digest counts)."""

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

    A registry is at ``/v2/`` of its host; a path is refused, because clients do not use one. ``written`` is the text
    that it was parsed from; URLs that differ only there are equal.
    """

    scheme: str
    host: str
    port: int | None = None
    written: str = field(default="", compare=False, repr=False)

    @classmethod
    @lru_cache(maxsize=256)
    def parse(cls, text: str) -> RegistryUrl:
        """``https://host[:port]``; a bare ``host[:port]`` means https. Docker Hub's aliases become its API host.

        Raises :class:`InvalidReference` for other schemes, user information, a path other than ``/`` or ``/v2/``,
        queries, control characters, port 0, a host with an empty label, and for ``hub.docker.com``, which is another
        API.
        """
        stripped = text.strip()
        if not stripped.isprintable():  # some of which Python's parser drops without a word
            raise InvalidReference("url is not the URL of a registry: control characters are not allowed")
        try:
            parts = urlsplit(stripped if "://" in stripped else f"https://{stripped}")
            host, port = (parts.hostname or "").lower(), parts.port
        except ValueError:
            # It may contain a password in any place, so nothing of it is repeated.
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
        if port == 0:
            raise InvalidReference("url is not the URL of a registry: port 0 is none that anybody listens on")
        if ":" not in host and "" in host.split("."):
            raise InvalidReference(f"url is not the URL of a registry: part of its host is empty; such as {_EXAMPLE}")
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
        """``name`` on this registry: on Docker Hub a one-component name gets ``library/``."""
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
    """The tag under which a registry without the referrers API has the index of referrers of ``digest``."""
    text = f"{digest.algorithm[:32]}-{digest.encoded[:64]}"
    return TagName(_NOT_OF_A_TAG.sub("-", text))


def referrer_tag_names(digest: Digest) -> tuple[TagName, ...]:
    """The tags under which a registry may have referrers of ``digest``."""
    fallback = fallback_tag(digest)
    return (fallback, *(TagName(f"{fallback}{suffix}") for suffix in COSIGN_SUFFIXES))


def looks_like_a_referrer_tag(tag: TagName) -> bool:
    """Whether ``tag`` has the form of a referrer tag."""
    return _REFERRER_TAG.fullmatch(tag) is not None


def referrer_tags(tags: Iterable[TagName], digests: Iterable[Digest]) -> list[TagName]:
    """Those of ``tags``, a whole listing, that are referrer tags of one of ``digests``, sorted."""
    wanted = {name for digest in digests for name in referrer_tag_names(digest)}
    return sorted({tag for tag in tags if tag in wanted})


def subject_by_name(tag: TagName, digest: Digest | None) -> Digest | None:
    """The subject that ``tag``, which refers to ``digest``, is named after; None for a tag of an image.

    A tag that is named after the manifest it refers to is a tag of an image, too.
    """
    found = _NAMED_AFTER.fullmatch(tag)
    if found is None:
        return None
    subject = Digest(f"sha256:{found['encoded']}")
    return None if subject == digest and not found["suffix"] else subject
