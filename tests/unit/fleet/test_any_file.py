"""Whatever a file holds, it is read to mistakes with places, and never to an exception."""

from __future__ import annotations

from pathlib import Path

import pytest
from hypothesis import given, settings
from hypothesis import strategies as some

from registry_sync.domain.mirrors import Mirror
from registry_sync.fleet.definition import DEFAULTS, FILE_KEYS, GROUP, MIRROR
from registry_sync.fleet.fleet_reading import read_fleet

WHOLE = """\
version: 1
connections: {docker.io: hub}
defaults: &d {schedule: "@daily", spread: 2h, tags: {exclude: ["*-debug"]}, guard: {max_total_bytes: 200GB}}
groups: {g: {batch: true, platforms: [linux/amd64]}, h: {<<: *d, labels: {a: b}}}
mirrors:
  - {source: docker.io/library/alpine, group: g, tags: {include: ["3.*", 1.10]}}
  - {repository: team/app, remote: {url: "https://${HOST:-quay.io}", upstream_name: a/b}, mode: additive}
  - {source: quay.io/a/c, group: h, publish: {private: false}, notify: [{on: [held], to: slack}], retain: {days: 3}}
  - {repository: named, remote: hub, freshness: 36h, schedule: {asset: "oci://a/b"}}
"""
SCALARS = some.one_of(
    some.none(),
    some.booleans(),
    some.integers(-10, 10**18),
    some.floats(),
    some.sampled_from(
        ["", "a", "docker.io/a/b", "@daily", "6h", "0 0 * * *", "[", "${X}", "$${", "${", "*", "\u0000", "é"]
    ),
)
VALUES = some.recursive(
    SCALARS,
    lambda inner: (
        some.lists(inner, max_size=3)
        | some.dictionaries(some.sampled_from(["url", "include", "asset", "on", "to", "range", "a"]), inner, max_size=3)
    ),
    max_leaves=6,
)
KEYS = sorted({key.name for keys in (MIRROR.keys, GROUP.keys, DEFAULTS.keys, FILE_KEYS) for key in keys})


@pytest.fixture(scope="module")
def path(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return tmp_path_factory.mktemp("any") / "mirrors.yaml"


def read(path: Path, data: bytes) -> None:
    """Reads a file of these bytes, and looks at all that came of it."""
    path.write_bytes(data)
    fleet = read_fleet(path, {})
    lines = len(data.decode("utf-8", "replace").splitlines()) + 2  # YAML has other ends of lines besides \n, too
    for mistake in fleet.mistakes:
        assert mistake.file == "mirrors.yaml"
        assert 0 <= mistake.line <= lines
        assert mistake.message
    for mirror in fleet.mirrors:
        assert Mirror.of_document(mirror.document()) == mirror
        assert mirror.remote is not None or mirror.remote_name
    assert fleet.mirrors or fleet.mistakes or b"mirrors" not in data or fleet.documents == ()
    list(fleet.groups.values())


@settings(max_examples=150)
@given(some.binary(max_size=60))
def test_any_bytes(path: Path, data: bytes) -> None:
    read(path, data)


@settings(max_examples=80)
@given(some.integers(0, len(WHOLE)), some.integers(0, 12), some.text(max_size=6))
def test_a_file_with_any_stroke_of_the_keyboard(path: Path, at: int, removed: int, typed: str) -> None:
    read(path, (WHOLE[:at] + typed + WHOLE[at + removed :]).encode("utf-8", "surrogatepass"))


@pytest.mark.slow
@settings(max_examples=100)
@given(
    some.dictionaries(some.sampled_from(KEYS), VALUES, max_size=6), some.sampled_from(["mirror", "defaults", "group"])
)
def test_any_values_for_the_keys(path: Path, values: dict[str, object], where: str) -> None:
    import json

    entry = json.dumps(values, ensure_ascii=True)
    text = {
        "mirror": f"version: 1\ngroups: {{a: {{}}}}\nmirrors:\n- {entry}\n- {{source: quay.io/a/good}}\n",
        "defaults": f"version: 1\ndefaults: {entry}\nmirrors:\n- {{source: quay.io/a/b}}\n",
        "group": f"version: 1\ngroups: {{g: {entry}}}\nmirrors:\n- {{source: quay.io/a/b, group: g}}\n",
    }[where]
    read(path, text.encode())


def test_the_whole_file_is_in_order(path: Path) -> None:
    path.write_text(WHOLE)
    fleet = read_fleet(path, {})
    assert fleet.mistakes == ()
    assert len(fleet.mirrors) == 4
