"""The selection of entries of an index by platform (image specification, image-index.md).

A selection never changes an index: its bytes, digest and signatures stay, and unselected entries are not fetched.
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

#: BuildKit's annotations of a manifest with attestations of another one (attestation-storage.md).
REFERENCE_TYPE, REFERENCE_DIGEST = "vnd.docker.reference.type", "vnd.docker.reference.digest"
ATTESTATION = "attestation-manifest"
#: The default variant of an architecture, and alternative names of architectures.
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
    """A selected platform: ``os(os.version+os.feature)/architecture/variant``, as in ``linux/arm/v7``.

    An omitted version or feature matches any. So does an omitted variant, but ``arm64`` means its ``v8`` and ``arm``
    its ``v7``, here and in an index. ``written`` is the text that it was parsed from, which is also its ``str``; two
    platforms written differently may be equal.
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
        """Whether the platform object of an index entry matches; values of other types match nothing."""
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
    """The platform object of an index entry in the form of :class:`Platform`; None when it has another form."""
    os, architecture = platform.get("os"), platform.get("architecture")
    if not isinstance(os, str) or not isinstance(architecture, str) or "unknown" in (os, architecture):
        return None
    version, variant = platform.get("os.version"), platform.get("variant")
    system = f"{os}({version})" if isinstance(version, str) and version else os
    text = "/".join(name for name in (system, architecture, variant) if isinstance(name, str) and name)
    return text if len(text) <= _MAX_LENGTH and _FORM.fullmatch(text) else None


def parse_platforms(texts: Iterable[str]) -> tuple[Platform, ...]:
    """Parses platforms. Raises :class:`InvalidReference` for an invalid one, and for an empty list."""
    platforms = tuple(map(Platform.parse, texts))
    if not platforms:
        raise InvalidReference("platforms: give at least one, such as linux/amd64, or omit it for all")
    return platforms


def select_entries(
    entries: Sequence[Descriptor], platforms: Sequence[Platform] | None, index: Digest
) -> tuple[Descriptor, ...]:
    """The selected entries of ``index``, in their order; all of them when ``platforms`` is None.

    An entry without a platform is selected, because it may have any. An attestation is selected if and only if the
    entry that it refers to is. Raises :class:`InvalidManifest` for a platform whose ``os`` or ``architecture`` is no
    text.
    """
    if platforms is None:
        return tuple(entries)
    selected = {entry.digest for entry in entries if _is_selected(entry, platforms, index)}
    return tuple(
        entry
        for entry in entries
        if (attested_digest(entry) in selected if is_attestation(entry) else entry.digest in selected)
    )


def is_attestation(entry: Descriptor) -> bool:
    """Whether an entry contains BuildKit's attestations of another entry."""
    return entry.annotations.get(REFERENCE_TYPE) == ATTESTATION


def attested_digest(entry: Descriptor) -> str | None:
    """The digest that an attestation refers to, as written; None when it has none."""
    return entry.annotations.get(REFERENCE_DIGEST)


def entry_name(entry: Descriptor) -> str:
    """A name of an index entry for people: ``linux/arm64``, ``the attestation of sha256:…``, or its type."""
    if is_attestation(entry):
        return f"the attestation of {(attested_digest(entry) or 'something')[:19]}"
    platform = entry.platform or {}
    names = [platform.get(name) for name in ("os", "architecture", "variant")]
    if names[1:] == ["arm64", "v8"]:
        names.pop()
    known = "/".join(name[:32] for name in names if isinstance(name, str) and name.isprintable())
    return known or f"an entry of type {entry.artifact_type or entry.media_type}"


def platforms_warning(names: Sequence[str], platforms: Iterable[Platform]) -> str:
    """``2 tags have none of the platforms linux/arm64 and are excluded: a, b``, for a few of ``names`` and a count."""
    has, is_ = ("has", "is") if len(names) == 1 else ("have", "are")
    more = f" and {len(names) - _SHOWN_TAGS:,} more" if len(names) > _SHOWN_TAGS else ""
    wanted = ", ".join(map(str, platforms))
    return (
        f"{format_count(len(names), 'tag')} {has} none of the platforms {wanted} and {is_} excluded: "
        f"{', '.join(names[:_SHOWN_TAGS])}{more}"
    )


def names_an_image(entries: Iterable[Descriptor]) -> bool:
    """Whether any entry is more than an attestation; an index without one has no image to run."""
    return any(not is_attestation(entry) for entry in entries)


def _is_selected(entry: Descriptor, platforms: Sequence[Platform], index: Digest) -> bool:
    if is_attestation(entry):
        return False
    if entry.platform is None or not entry.platform:
        return True
    for name in ("os", "architecture"):
        if not isinstance(entry.platform.get(name), str):
            raise InvalidManifest(
                f"manifest {index}: the platform of {entry.digest} has no text as {name!r}; it cannot be selected by "
                "platform",
                digest=index,
            )
    return any(platform.matches(entry.platform) for platform in platforms)
