"""Which entries of an index are taken along when only some platforms are wanted (image specification, image-index.md).

Choosing never changes an index: its bytes, digest and signatures stay, and what is not wanted is not fetched.
"""

from __future__ import annotations

import re
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

from registry_sync.domain.digests import Digest
from registry_sync.domain.manifest_documents import Descriptor
from registry_sync.domain.quantities import format_count
from registry_sync.errors import InvalidManifest, InvalidReference

#: How BuildKit marks the manifest that holds what it attests of another one (attestation-storage.md).
REFERENCE_TYPE, REFERENCE_DIGEST = "vnd.docker.reference.type", "vnd.docker.reference.digest"
ATTESTATION = "attestation-manifest"
#: What an architecture is without a variant, and the names under which it is also known.
_DEFAULT_VARIANTS = {"arm64": "v8", "arm": "v7"}
_ARCHITECTURES = {"x86_64": "amd64", "x86-64": "amd64", "aarch64": "arm64", "armhf": "arm", "armel": "arm"}
_FORM = re.compile(
    r"(?P<os>[a-z0-9_]+)(\((?P<version>[A-Za-z0-9._-]*)(?P<features>(\+[A-Za-z0-9._-]+)*)\))?"
    r"/(?P<architecture>[A-Za-z0-9_-]+)(/(?P<variant>[A-Za-z0-9._]+))?"
)
_MAX_LENGTH = 255
_SHOWN_TAGS = 5


@dataclass(frozen=True)
class Platform:
    """A platform that is wanted: ``os(os.version+os.feature)/architecture/variant``, as in ``linux/arm/v7``.

    A version or feature that is left out may be anything. So may a variant, but ``arm64`` is its ``v8`` and ``arm``
    its ``v7``, here and in an index. ``written`` is the text that it was parsed from, which is also its ``str``; two
    that were written differently may be the same.
    """

    os: str
    architecture: str
    variant: str | None = None
    os_version: str | None = None
    os_features: tuple[str, ...] = ()
    written: str = field(compare=False, repr=False, kw_only=True)

    def __str__(self) -> str:
        return self.written

    @classmethod
    def parse(cls, text: str) -> Platform:
        """Raises :class:`InvalidReference`."""
        found = _FORM.fullmatch(text.strip()) if len(text) <= _MAX_LENGTH else None
        if found is None:
            raise InvalidReference(
                f"platform {text[:60]!r}: write it as os/architecture or os/architecture/variant, such as linux/amd64, "
                "linux/arm/v7 or windows(10.0.20348)/amd64"
            )
        return cls(
            os=found["os"],
            architecture=_ARCHITECTURES.get(found["architecture"], found["architecture"]),
            variant=found["variant"],
            os_version=found["version"] or None,
            os_features=tuple(found["features"].split("+")[1:]) if found["features"] else (),
            written=text,
        )

    def matches(self, platform: Mapping[str, Any]) -> bool:
        """Whether the platform object of an index entry is one of these; values of other types match nothing."""
        architecture = platform.get("architecture")
        if platform.get("os") != self.os or not isinstance(architecture, str):
            return False
        architecture = _ARCHITECTURES.get(architecture, architecture)
        version, features = platform.get("os.version"), platform.get("os.features")
        return (
            architecture == self.architecture
            and self._has_variant(platform.get("variant"))
            and (self.os_version is None or _is_version(version, self.os_version))
            and set(self.os_features) <= set(features if isinstance(features, list) else ())
        )

    def _has_variant(self, variant: object) -> bool:
        usual = _DEFAULT_VARIANTS.get(self.architecture)
        wanted = self.variant or usual
        return wanted is None or (variant or usual) == wanted


def _is_version(found: object, wanted: str) -> bool:
    """Whether ``found`` is ``wanted`` or a build of it: 10.0.20348 means 10.0.20348.2582 too."""
    return isinstance(found, str) and (found == wanted or found.startswith(f"{wanted}."))


def platform_text(platform: Mapping[str, Any]) -> str | None:
    """The platform object of an index entry in the form of :class:`Platform`; None when it names none in that form."""
    os, architecture = platform.get("os"), platform.get("architecture")
    if not isinstance(os, str) or not isinstance(architecture, str) or "unknown" in (os, architecture):
        return None
    version, variant = platform.get("os.version"), platform.get("variant")
    system = f"{os}({version})" if isinstance(version, str) and version else os
    text = "/".join(part for part in (system, architecture, variant) if isinstance(part, str) and part)
    return text if len(text) <= _MAX_LENGTH and _FORM.fullmatch(text) else None


def parse_platforms(texts: Iterable[str]) -> tuple[Platform, ...]:
    """Platforms as written. Raises :class:`InvalidReference` for one that has not the form, and for none."""
    platforms = tuple(map(Platform.parse, texts))
    if not platforms:
        raise InvalidReference("platforms: name at least one, such as linux/amd64, or leave it out for all")
    return platforms


def select_entries(
    entries: Sequence[Descriptor], platforms: Sequence[Platform] | None, index: Digest
) -> tuple[Descriptor, ...]:
    """The entries of ``index`` that are taken along, in their order; all of them when ``platforms`` is None.

    An entry without a platform is taken: it may be anything. An attestation is taken if and only if the entry that
    it speaks of is. Raises :class:`InvalidManifest` for a platform whose ``os`` or ``architecture`` is no text.
    """
    if platforms is None:
        return tuple(entries)
    taken = {entry.digest for entry in entries if _is_taken(entry, platforms, index)}
    return tuple(
        entry
        for entry in entries
        if (attested_digest(entry) in taken if is_attestation(entry) else entry.digest in taken)
    )


def is_attestation(entry: Descriptor) -> bool:
    """Whether an entry holds what BuildKit attests of another entry."""
    return entry.annotations.get(REFERENCE_TYPE) == ATTESTATION


def attested_digest(entry: Descriptor) -> str | None:
    """The digest that an attestation speaks of, as it is written; None when it does not say."""
    return entry.annotations.get(REFERENCE_DIGEST)


def entry_name(entry: Descriptor) -> str:
    """What an entry of an index is, for people: ``linux/arm64``, ``the attestation of sha256:…``, or its type."""
    if is_attestation(entry):
        return f"the attestation of {(attested_digest(entry) or 'something')[:19]}"
    platform = entry.platform or {}
    parts = [platform.get(name) for name in ("os", "architecture", "variant")]
    if parts[1:] == ["arm64", "v8"]:
        parts.pop()
    known = "/".join(part[:32] for part in parts if isinstance(part, str) and part.isprintable())
    return known or f"an entry of type {entry.artifact_type or entry.media_type}"


def left_out_by_platforms(names: Sequence[str], platforms: Iterable[Platform]) -> str:
    """``2 tags have none of the platforms linux/arm64 and are excluded: a, b``; the first, and how many besides."""
    has, is_ = ("has", "is") if len(names) == 1 else ("have", "are")
    more = f" and {len(names) - _SHOWN_TAGS:,} more" if len(names) > _SHOWN_TAGS else ""
    wanted = ", ".join(map(str, platforms))
    return (
        f"{format_count(len(names), 'tag')} {has} none of the platforms {wanted} and {is_} excluded: "
        f"{', '.join(names[:_SHOWN_TAGS])}{more}"
    )


def names_an_image(entries: Iterable[Descriptor]) -> bool:
    """Whether an entry is more than an attestation: of an index that has none, nothing can be run."""
    return any(not is_attestation(entry) for entry in entries)


def _is_taken(entry: Descriptor, platforms: Sequence[Platform], index: Digest) -> bool:
    if is_attestation(entry):
        return False
    if entry.platform is None or not entry.platform:
        return True
    for name in ("os", "architecture"):
        if not isinstance(entry.platform.get(name), str):
            raise InvalidManifest(
                f"manifest {index}: the platform of {entry.digest} has no text as {name!r}; "
                "it cannot be chosen by platform",
                digest=index,
            )
    return any(platform.matches(entry.platform) for platform in platforms)
