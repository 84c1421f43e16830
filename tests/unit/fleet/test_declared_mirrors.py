"""What a file says becomes mirrors; a mistake is said with its place and hurts its mirror alone."""

from __future__ import annotations

from datetime import timedelta
from pathlib import Path

import pytest

from registry_sync.domain.mirror_states import NotifiedOf
from registry_sync.domain.mirrors import Mirror, MirrorSchedule, Notification, Publication, Retention
from registry_sync.domain.records import SyncMode
from registry_sync.domain.remote import Policy
from registry_sync.errors import ConfigurationError
from registry_sync.fleet.loading import load_fleet

from .conftest import Declare

HEAD = "version: 1\nmirrors:\n"


def mirror(declare: Declare, entry: str, above: str = "") -> Mirror:
    """The only mirror of a file with this entry, without mistakes."""
    fleet = declare(f"version: 1\n{above}mirrors:\n  - {entry}\n")
    assert [str(mistake) for mistake in fleet.mistakes] == []
    (made,) = fleet.mirrors
    return made


def mistakes(declare: Declare, text: str) -> list[str]:
    """The mistakes of a file."""
    return [str(mistake) for mistake in declare(text).mistakes]


def test_a_source_is_a_registry_and_a_repository_there(declare: Declare) -> None:
    made = mirror(declare, "source: docker.io/alpine")
    assert made.repository == "library/alpine"
    assert made.remote is not None
    assert made.remote.source == "registry-1.docker.io/library/alpine"
    assert made.place == "mirrors.yaml:3"
    assert mirror(declare, "source: http://localhost:5000/a/b").remote.url.scheme == "http"  # type: ignore[union-attr]


@pytest.mark.parametrize(
    ("source", "message"),
    [
        ("docker.io/library/alpine:3", "tags: {include: ['3']}"),
        ("quay.io/a@sha256:abc", "tags: {digests: [sha256:abc]}"),
        ("library/alpine", "the registry first"),
        ("alpine", "the registry first"),
        ("quay.io/A", "not a repository name"),
        ("hub.docker.com/library/alpine", "website"),
    ],
)
def test_a_source_that_cannot_be_used_says_what_was_expected(declare: Declare, source: str, message: str) -> None:
    (said,) = mistakes(declare, f"{HEAD}  - source: '{source}'\n")
    assert said.startswith("mirrors.yaml:3: source")
    assert message in said


def test_every_field_is_read(declare: Declare) -> None:
    made = mirror(
        declare,
        "{source: quay.io/a/b, repository: team/b, platforms: [linux/arm64], include_referrers: false, "
        "policy: on_demand, mode: additive, schedule: '30 3 * * 1-5', timezone: Europe/Berlin, enabled: false, "
        "retries: 7, "
        "guard: {max_removed_share: 0.25, max_removed_tags: 9, max_held_share: .5, max_total_bytes: 1.5GiB}, "
        "retain: {versions: 3, days: 9}, conn_id: c, pool: p, priority: -5, owner: o, description: d, "
        "labels: {team: 1.10}, publish: {base_path: pub/b, private: false}, freshness: 1d12h, "
        "notify: [{on: [held, stale], to: slack}, {on: failed, to: mail}], replace_upstream: true, "
        "remote: {download_concurrency: 3, ssl_validation: false, allow_sparse: true, digest_list: 'off'}}",
    )
    remote = made.remote
    assert remote is not None
    assert (made.repository, remote.name, remote.upstream_name) == ("team/b", "team/b", "a/b")
    assert list(map(str, remote.platforms or ())) == ["linux/arm64"]
    assert (remote.include_referrers, remote.policy, made.mode) == (False, Policy.ON_DEMAND, SyncMode.ADDITIVE)
    assert made.schedule == MirrorSchedule(cron="30 3 * * 1-5", timezone="Europe/Berlin")
    assert (made.is_enabled, made.retries, made.pool, made.priority) == (False, 7, "p", -5)
    assert (remote.max_removed_share, remote.max_removed_tags, remote.max_held_share) == (0.25, 9, 0.5)
    assert remote.max_total_bytes == 3 * 2**29
    assert made.retention == Retention(3, 9)
    assert (remote.conn_id, made.owner, made.description) == ("c", "o", "d")
    assert made.labels == remote.labels == {"team": "1.10"}
    assert made.publication == Publication("pub/b", is_private=False)
    assert made.freshness == timedelta(hours=36)
    assert made.notifications == (
        Notification((NotifiedOf.HELD, NotifiedOf.STALE), "slack"),
        Notification((NotifiedOf.FAILED,), "mail"),
    )
    assert made.replaces_upstream
    assert (remote.download_concurrency, remote.ssl_validation, remote.allow_sparse) == (3, False, True)
    assert remote.digest_list.value == "off"
    assert Mirror.of_document(made.document()) == made


def test_a_remote_by_name_is_used_as_it_is(declare: Declare) -> None:
    made = mirror(declare, "{repository: a, remote: hub-alpine}")
    assert (made.remote_name, made.remote) == ("hub-alpine", None)
    (said,) = mistakes(declare, f"{HEAD}  - {{repository: a, remote: x, policy: on_demand}}\n")
    assert "leave out policy" in said
    (said,) = mistakes(declare, f"{HEAD}  - {{remote: x}}\n")
    assert "repository is missing" in said


def test_tags_are_text_and_exclusions_add_up(declare: Declare) -> None:
    above = "defaults: {tags: {exclude: ['*-debug']}}\ngroups: {g: {tags: {exclude: [edge]}}}\n"
    remote = mirror(
        declare, "{source: quay.io/a/b, group: g, tags: {include: [1.10, 3.*], exclude: [x]}}", above
    ).remote
    assert remote is not None
    assert remote.include_tags == ("1.10", "3.*")
    assert remote.exclude_tags == ("*-debug", "edge", "x")
    cleared = mirror(declare, "{source: quay.io/a/b, group: g, tags: null}", above).remote
    assert cleared is not None
    assert (cleared.include_tags, cleared.exclude_tags) == (None, ())


def test_a_mirror_says_otherwise_than_its_group_and_that_than_the_defaults(declare: Declare) -> None:
    above = (
        "defaults: {owner: d, pool: d, guard: {max_removed_tags: 1, max_held_share: 0.1}, labels: {a: d, b: d}}\n"
        "groups: {g: {pool: g, guard: {max_held_share: 0.2}, labels: {b: g}}}\n"
    )
    made = mirror(declare, "{source: quay.io/a/b, group: g, labels: {c: m}, owner: ~}", above)
    assert made.remote is not None
    assert (made.owner, made.pool, made.group) == (None, "g", "g")
    assert (made.remote.max_removed_tags, made.remote.max_held_share) == (1, 0.2)
    assert made.labels == {"a": "d", "b": "g", "c": "m"}


def test_connections_are_chosen_by_host_unless_a_mirror_names_one(declare: Declare) -> None:
    above = "connections: {docker.io: hub, quay.io: quay}\n"
    assert mirror(declare, "source: registry-1.docker.io/library/a", above).remote.conn_id == "hub"  # type: ignore[union-attr]
    assert mirror(declare, "{source: quay.io/a/b, conn_id: own}", above).remote.conn_id == "own"  # type: ignore[union-attr]
    assert mirror(declare, "source: ghcr.io/a/b", above).remote.conn_id is None  # type: ignore[union-attr]


def test_a_mistake_hurts_its_mirror_alone(declare: Declare) -> None:
    fleet = declare(
        f"{HEAD}"
        "  - source: quay.io/good/one\n"
        "  - {source: quay.io/bad/key, shedule: 6h}\n"
        "  - {source: quay.io/bad/value, guard: {max_removed_share: 3}, platforms: linux}\n"
        "  - {source: quay.io/bad/group, group: nobody}\n"
        "  - source: quay.io/bad/twice\n    policy: immediate\n    policy: streamed\n"
        "  - {source: quay.io/good/one}\n"
        "  - nothing\n"
        "  - source: quay.io/good/two\n"
    )
    assert [made.repository for made in fleet.mirrors] == ["good/one", "good/two"]
    assert [(mistake.line, mistake.repository) for mistake in fleet.mistakes] == [
        (4, "bad/key"), (5, "bad/value"), (5, "bad/value"), (6, "bad/group"), (9, "bad/twice"), (10, None), (11, None),
    ]  # fmt: skip
    said = [mistake.message for mistake in fleet.mistakes]
    assert said[0] == "there is no key 'shedule': did you mean 'schedule'? (keys of your own begin with x-)"
    assert "expected a share from 0 to 1" in said[1] or "expected a share from 0 to 1" in said[2]
    assert "mirrors.yaml:3 already" in said[5]
    assert list(fleet.broken) == ["bad/key", "bad/value", "bad/group", "bad/twice"]
    with pytest.raises(ConfigurationError, match="did you mean 'schedule'"):
        fleet.mirror("bad/key")
    with pytest.raises(ConfigurationError, match="no mirror"):
        fleet.mirror("gone")
    assert fleet.mirror("good/two").repository == "good/two"


@pytest.mark.parametrize(
    ("entry", "expected"),
    [
        ("schedule: '* * * * * *'", "six|6 fields"),
        ("schedule: '99 * * * *'", "no cron expression"),
        ("schedule: '@sometimes'", "@daily"),
        ("schedule: 30s", "shorter than a minute"),
        ("schedule: {cron: x}", "asset"),
        ("timezone: Mars/Olympus", "time zone"),
        ("freshness: 36", "a duration such as"),
        ("guard: {max_total_bytes: 3XB}", "a size such as"),
        ("enabled: 1", "true or false"),
        ("enabled: yes", "true or false"),
        ("policy: imediate", "did you mean 'immediate'"),
        ("platforms: [windows]", "platform"),
        ("tags: {include: ['a b']}", "tag"),
        ("tags: {regex: ['(']}", "RE2"),
        ("tags: {semver: '>=a.b'}", "cannot be read"),
        ("tags: {newest: 0}", "from 1"),
        ("tags: [~]", "expected a map of rules"),
        ("tags: latest", "expected a map of rules"),
        ("retries: -1", "from 0 to 100"),
        ("labels: [a]", "a map of texts"),
        ("publish: 'A'", "base path"),
        ("notify: [{on: often, to: a}]", "expected"),
        ("notify: [{on: held}]", "to is missing"),
        ("batch: true", "belongs to a group"),
        ("remote: {url: 'https://quay.io'}", "source and remote.url are given"),
        ("conn_id: registry_sync_remote_x_", "made for alone"),
    ],
)
def test_what_a_key_expects_is_said(declare: Declare, entry: str, expected: str) -> None:
    found = mistakes(declare, f"{HEAD}  - source: quay.io/a/b\n    {entry}\n")
    assert found
    assert found[0].startswith(("mirrors.yaml:4: ", "mirrors.yaml:3: "))
    assert any(part in said for part in expected.split("|") for said in found), found


def test_variables_are_replaced_in_values_and_add_no_structure(declare: Declare) -> None:
    text = (
        f"{HEAD}  - source: ${{HOST:?the registry}}/a/b\n    owner: '${{OWNER:-nobody}}'\n"
        "    description: '$${X}'\n    labels: {x: '${EVIL}'}\n"
    )
    fleet = declare(text, environment={"HOST": "quay.io", "EVIL": "a}\nb: [c"})
    (made,) = fleet.mirrors
    assert made.remote is not None
    assert (made.remote.source, made.owner, made.description) == ("quay.io/a/b", "nobody", "${X}")
    assert made.labels == {"x": "a}\nb: [c"}
    (said,) = (str(mistake) for mistake in declare(text, environment={"EVIL": "x"}).mistakes)
    assert "the environment variable HOST is not set: the registry" in said


def test_files_are_included_and_have_what_the_main_one_has(declare: Declare) -> None:
    fleet = declare(
        "version: 1\ninclude: ['mirrors.d/*.yaml']\nconnections: {quay.io: q}\ndefaults: {owner: main, pool: main}\n"
        "groups: {g: {priority: 5}}\nmirrors:\n  - source: quay.io/a/main\n",
        **{
            "mirrors.d/one.yaml": "version: 1\ndefaults: {owner: one}\nmirrors: \n - {source: quay.io/a/one, group: g}",
            "mirrors.d/two.yaml": "version: 1\nmirrors: [{source: quay.io/a/two}]\n",
            "mirrors.d/bad.yaml": "version: 1\nmirrors: [\n",
            "mirrors.d/old.yaml": "version: 2\nmirrors: [{source: quay.io/a/old}]\n",
            "mirrors.d/inc.yaml": "version: 1\ninclude: ['*.yaml']\nmirrors: []\n",
        },
    )
    made = {mirror.repository: mirror for mirror in fleet.mirrors}
    assert set(made) == {"a/main", "a/one", "a/two"}
    assert (made["a/one"].owner, made["a/one"].pool, made["a/one"].priority) == ("one", "main", 5)
    assert made["a/two"].owner == "main"
    assert made["a/one"].remote.conn_id == "q"  # type: ignore[union-attr]
    assert made["a/one"].place == "mirrors.d/one.yaml:4"
    assert [mistake.file for mistake in fleet.mistakes] == [
        "mirrors.d/bad.yaml",
        "mirrors.d/inc.yaml",
        "mirrors.d/old.yaml",
    ]
    assert not fleet.is_unreadable


@pytest.mark.parametrize("pattern", ["../x.yaml", "/etc/*.yaml", "https://example.com/m.yaml", "a/../../x"])
def test_nothing_outside_the_folder_is_included(declare: Declare, pattern: str) -> None:
    (said,) = mistakes(declare, f"version: 1\ninclude: ['{pattern}']\nmirrors: []\n")
    assert "stays below the folder" in said


def test_a_link_that_leads_out_of_the_folder_is_not_included(declare: Declare, tmp_path: Path) -> None:
    (tmp_path / "d").mkdir()
    (tmp_path / "d" / "out.yaml").symlink_to("/etc/hostname")
    (tmp_path / "d" / "in.yaml").symlink_to(tmp_path / "data.yml")
    (tmp_path / "data.yml").write_text("version: 1\nmirrors: [{source: quay.io/a/b}]\n")
    fleet = declare("version: 1\ninclude: ['d/*.yaml']\nmirrors: []\n")
    assert [str(mistake) for mistake in fleet.mistakes] == [
        "d/out.yaml: the file is a link that leads out of the folder of the fleet"
    ]
    assert [made.repository for made in fleet.mirrors] == ["a/b"]


def test_certificates_are_read_from_files_below_the_folder(declare: Declare, tmp_path: Path) -> None:
    entry = "{source: quay.io/a/b, remote: {ssl_ca_certificate: {file: FILE}}}"
    fleet = declare(f"{HEAD}  - {entry.replace('FILE', 'ca/x.pem')}\n", **{"ca/x.pem": "PEM"})
    assert fleet.mirrors[0].remote.ssl_ca_certificate == "PEM"  # type: ignore[union-attr]
    assert "cannot be read" in mistakes(declare, f"{HEAD}  - {entry.replace('FILE', 'ca/gone.pem')}\n")[0]
    (tmp_path / "link.pem").symlink_to("/etc/hostname")
    assert "out of the folder" in mistakes(declare, f"{HEAD}  - {entry.replace('FILE', 'link.pem')}\n")[0]
    key = "-----BEGIN PRIVATE KEY-----\nx\n-----END PRIVATE KEY-----\n"
    fleet = declare(f"{HEAD}  - {entry.replace('FILE', 'ca/key.pem')}\n", **{"ca/key.pem": key})
    assert "private key" in str(fleet.mistakes[0])


def test_a_folder_is_a_fleet_too(tmp_path: Path) -> None:
    (tmp_path / "a.yaml").write_text("version: 1\nmirrors: [{source: quay.io/a/a}]\n")
    (tmp_path / "b.yml").write_text("version: 1\nmirrors: [{source: quay.io/a/b}]\n")
    assert [made.repository for made in load_fleet(tmp_path).mirrors] == ["a/a", "a/b"]
    (tmp_path / "mirrors.yaml").write_text("version: 1\ndefaults: {owner: o}\nmirrors: []\n")
    assert {made.owner for made in load_fleet(tmp_path).mirrors} == {"o"}
    assert load_fleet(tmp_path / "gone").is_unreadable
    (tmp_path / "empty").mkdir()
    assert load_fleet(tmp_path / "empty").is_unreadable


def test_a_batch_is_scheduled_by_its_group(declare: Declare) -> None:
    fleet = declare(
        "version: 1\ndefaults: {schedule: '@daily'}\ngroups: {g: {batch: true, pool: p, labels: {a: b}}}\nmirrors:\n"
        "  - {source: quay.io/a/one, group: g}\n"
        "  - {source: quay.io/a/two, group: g, priority: 7}\n"
        "  - {source: quay.io/a/early, group: g}\n"
        "  - {source: quay.io/a/off, group: g, enabled: false}\n"
        "  - {source: quay.io/a/bad, group: g, schedule: 6h}\n"
        "  - {source: quay.io/a/alone}\n"
    )
    (group,) = fleet.groups.values()
    assert (group.dag_id, group.repositories) == ("mirrors.g", ("a/two", "a/one", "a/early"))
    assert (group.schedule, group.pool, group.labels) == (MirrorSchedule(cron="@daily"), "p", {"a": "b"})
    assert [made.dag_id for made in fleet.mirrors] == ["mirrors.g"] * 4 + ["mirror.a.alone"]
    assert [str(mistake) for mistake in fleet.mistakes] == [
        "mirrors.yaml:9: schedule is said by the group 'g', which is a batch"
    ]


def test_mirrors_of_a_batch_that_cannot_be_used_say_so(declare: Declare) -> None:
    fleet = declare(
        "version: 1\ngroups: {g: {batch: true, owner: []}, h: {batch: true, retries: x}}\nmirrors:\n"
        "  - {source: quay.io/a/b, group: g, owner: me}\n  - {source: quay.io/a/c, group: h}\n"
    )
    assert (fleet.mirrors, fleet.groups) == ((), {})
    assert "mirrors.yaml:4: the group 'g' has mistakes, and is a batch" in map(str, fleet.mistakes)
    assert set(fleet.broken) == {"a/b", "a/c"}
    batch = declare("version: 1\ndefaults: {batch: true}\nmirrors: [{source: quay.io/a/b}]\n")
    assert "there is no key 'batch'" in str(batch.mistakes[0])
    assert [made.is_batched for made in batch.mirrors] == [False]


def test_a_file_that_is_no_fleet_is_said_to_be_none(declare: Declare) -> None:
    assert "not a map" in mistakes(declare, "- a\n")[0]
    assert "version is missing" in mistakes(declare, "mirrors: []\n")[0]
    assert "reads version 1" in mistakes(declare, "version: 2\nmirrors: []\n")[0]
    assert "did you mean 'mirrors'" in mistakes(declare, "version: 1\nmirors: []\nx-own: {a: b}\n")[0]
    assert declare("version: 1\nmirrors: [\n").is_unreadable


def test_a_mistake_in_the_defaults_is_said_once_for_the_file_and_for_each_mirror_it_hurts(declare: Declare) -> None:
    fleet = declare(
        "version: 1\ndefaults: {retries: many}\nmirrors:\n  - source: quay.io/a/b\n  - source: quay.io/a/c\n"
    )
    assert [(mistake.line, mistake.repository) for mistake in fleet.mistakes] == [(2, None), (2, "a/b"), (2, "a/c")]
