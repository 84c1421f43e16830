"""The formats that can be imported, how a file's is recognised, and the import of a text."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass

from registry_sync.errors import ConfigurationError
from registry_sync.fleet.imports.dregsy import import_dregsy, is_dregsy
from registry_sync.fleet.imports.harbor import POLICIES, import_harbor
from registry_sync.fleet.imports.image_syncer import import_image_syncer, is_image_syncer
from registry_sync.fleet.imports.imported_fleet import FleetImport, ImportedFleet
from registry_sync.fleet.imports.oc_mirror import KIND, import_oc_mirror
from registry_sync.fleet.imports.quay import MIRRORS, import_quay, is_quay
from registry_sync.fleet.imports.regsync import import_regsync
from registry_sync.fleet.imports.skopeo import RepositoryNames, import_skopeo
from registry_sync.fleet.imports.zot import import_zot
from registry_sync.fleet.yaml_text import Entries, Fields, Misread, parse_yaml

_SKOPEO_KEYS = {"images", "images-by-tag-regex", "images-by-semver"}


@dataclass(frozen=True)
class ImportOptions:
    """What a file does not say itself; ``names`` is for skopeo's."""

    names: RepositoryNames = RepositoryNames.PATH


def _is_regsync(top: Fields) -> bool:
    entries = top.get("sync")
    if "sync" in top and ("version" in top or "defaults" in top or "creds" in top):
        return True
    return isinstance(entries, Entries) and any(
        isinstance(entry, Fields) and "source" in entry and "target" in entry for entry in entries
    )


def _is_zot(top: Fields) -> bool:
    found = {key.lower(): value for key, value in top.items()}.get("extensions")
    return isinstance(found, Fields) and any(key.lower() == "sync" for key in found)


def _is_skopeo(top: Fields) -> bool:
    return any(isinstance(value, Fields) and not _SKOPEO_KEYS.isdisjoint(value) for value in top.values())


def _is_harbor(top: Fields) -> bool:
    return any(key in top for key in ("src_registry", "dest_registry", "replication_mode", "replication_filter"))


def _is_oc_mirror(top: Fields) -> bool:
    return top.get("kind") == KIND


_Read = Callable[[Fields, FleetImport, ImportOptions], None]
_FORMATS: Mapping[str, tuple[Callable[[Fields], bool], _Read]] = {
    "skopeo": (_is_skopeo, lambda top, into, options: import_skopeo(top, into, options.names)),
    "regsync": (_is_regsync, lambda top, into, _options: import_regsync(top, into)),
    "zot": (_is_zot, lambda top, into, _options: import_zot(top, into)),
    "oc-mirror": (_is_oc_mirror, lambda top, into, _options: import_oc_mirror(top, into)),
    "harbor": (_is_harbor, lambda top, into, _options: import_harbor(top, into)),
    "quay": (is_quay, lambda top, into, _options: import_quay(top, into)),
    "dregsy": (is_dregsy, lambda top, into, _options: import_dregsy(top, into)),
    "image-syncer": (is_image_syncer, lambda top, into, _options: import_image_syncer(top, into)),
}
#: The names of the formats.
FORMATS = tuple(_FORMATS)


def import_fleet(data: bytes, file: str, of: str | None = None, options: ImportOptions | None = None) -> ImportedFleet:
    """The mirrors of a file; ``of`` is its format, None for the one that its keys are of.

    Raises :class:`ConfigurationError` for what is no YAML or JSON, and for a format that is not recognised.
    """
    if data.lstrip()[:1] in (b"{", b"["):
        data = data.replace(b"\t", b" ")  # JSON has tabs between values alone, where YAML has none
    try:
        top = parse_yaml(data, file)
    except Misread as misread:
        raise ConfigurationError(f"{file}:{misread.place.line}: {misread.message}") from None
    if isinstance(top, Entries) and of in (None, "harbor", "quay"):  # an API sends lists
        listed = Fields(top.place)
        listed.add(MIRRORS, top.place, top)
        of = of or ("quay" if is_quay(listed) else "harbor")
        if of == "harbor":
            listed = Fields(top.place)
            listed.add(POLICIES, top.place, top)
        top = listed
    if not isinstance(top, Fields):
        raise ConfigurationError(f"{file}: this is no map; expected a file of {', '.join(_FORMATS)}")
    if of is None:
        fitting = [name for name, (fits, _) in _FORMATS.items() if fits(top)]
        if len(fitting) != 1:
            found = f"has keys of {' and '.join(fitting)}" if fitting else "has no keys of a known format"
            raise ConfigurationError(f"{file} {found}: say which it is, {', '.join(_FORMATS)}, before the file")
        of = fitting[0]
    into = FleetImport(file)
    into.warn_repeated(top)
    _FORMATS[of][1](top, into, options or ImportOptions())
    return into.finish()
