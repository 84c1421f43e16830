"""Names of repositories, tags and registries (OCI distribution specification, "Pulling manifests").

Text is checked once, here, before it may stand in a URL, a file name or a table. Docker Hub's aliases are
resolved here too, so that the rest of the code knows one registry under one address.

Tags by which signatures, attestations and bills of material are found beside the manifests they speak of.

The fallback tag is the distribution specification's ("Referrers Tag Schema"); the suffixed ones are cosign's.
"""

from __future__ import annotations

import re
from collections.abc import Iterable
from dataclasses import dataclass
from urllib.parse import urlsplit

from registry_sync.domain.digests import Digest
from registry_sync.domain.known_registries import DOCKER_HUB, known_registry, registry_called
from registry_sync.errors import InvalidReference

_COMPONENT = r"[a-z0-9]+(?:(?:\.|_|__|-+)[a-z0-9]+)*"
_NAME = re.compile(rf"{_COMPONENT}(?:/{_COMPONENT})*")
_TAG = re.compile(r"[a-zA-Z0-9_][a-zA-Z0-9._-]{0,127}")
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

    A registry answers at ``/v2/`` of its host; a path is refused, because clients would not look there.
    """

    scheme: str
    host: str
    port: int | None = None

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
        return cls(parts.scheme, host, None if port == {"https": 443, "http": 80}[parts.scheme] else port)

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
