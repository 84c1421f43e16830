"""Mirrors of Quay, imported."""

from __future__ import annotations

import pytest

from registry_sync.domain.records import SyncMode

from .conftest import Import

FILE = """\
{
  "team/web": {"is_enabled": true, "mirror_type": "PULL", "external_reference": "reg.example.net/upstream/web",
    "external_registry_username": "bot", "external_registry_config": {"verify_tls": false, "unsigned_images": true,
      "proxy": {"http_proxy": null, "https_proxy": "http://proxy.example:3128", "no_proxy": "localhost"}},
    "sync_interval": 86400, "sync_start_date": "2026-01-05T02:30:00Z", "sync_expiration_date": null,
    "sync_retries_remaining": 3, "sync_status": "SYNC_NOW", "robot_username": "team+mirror",
    "skopeo_timeout_interval": 300, "architecture_filter": ["amd64", "arm64"],
    "root_rule": {"rule_kind": "tag_glob_csv", "rule_value": ["7.*", "latest", "1.1[^0]", "v{1,2}"]}},
  "team/all": {"is_enabled": false, "external_reference": "quay.io/up/all", "sync_interval": 5000,
    "root_rule": {"rule_kind": "tag_glob_csv", "rule_value": "*, 1.0"}},
  "team/none": {"external_reference": "quay.io/up/none", "sync_interval": 600, "root_rule": {"rule_kind": "csv"}},
  "team/org": {"external_registry_type": "harbor", "external_namespace": "x", "repository_filters": ["a*"]}
}
"""


def test_mirrors_of_quay_become_mirrors_that_remove(imported: Import) -> None:
    made = imported(FILE)
    assert [mirror.repository for mirror in made.fleet.mirrors] == ["team/web", "team/all"]
    web, every = made.mirror("team/web"), made.mirror("team/all")
    assert made.options("team/web") == {"include_tags": ["7.*", "latest", "1.1[0]"]}
    assert made.options("team/all") == {}
    assert (web.mode, every.mode) == (SyncMode.MIRROR, SyncMode.MIRROR)
    assert web.remote is not None
    assert (web.remote.source, web.remote.ssl_validation) == ("reg.example.net/upstream/web", False)
    assert (web.remote.conn_id, web.remote.proxy_url) == ("reg_example_net", "http://proxy.example:3128")
    assert [str(platform) for platform in web.remote.platforms or ()] == ["linux/amd64", "linux/arm64"]
    assert web.schedule is not None
    assert web.schedule.cron == "30 2 * * *"
    assert (web.is_enabled, every.is_enabled) == (True, False)
    for line, text in (
        (1, "Quay drops signatures"),
        (3, "ssl_validation is false"),
        (4, "no_proxy has no counterpart"),
        (8, "'v{1,2}' matches no tag"),
        (11, "the rule 'csv' has no counterpart"),
        (12, "a mirror of an organization has no counterpart"),
    ):
        assert any(said.startswith(f"theirs.yaml:{line}: warning: ") and text in said for said in made.warned()), text
    assert "login 'bot' and its password, which Quay does not return" in made.said()


def test_keys_of_a_rule_and_of_a_proxy_that_are_not_known_are_said(imported: Import) -> None:
    made = imported("""\
        external_reference: quay.io/a/b
        sync_interval: 86400
        root_rule: {rule_kind: tag_glob_csv, rule_value: ["1.*"], left_child: {rule_kind: tag_glob_csv}}
        external_registry_config: {proxy: {https_proxy: "http://p.example:1", ftp_proxy: x}}
        """)
    for key, what in (("left_child", "root_rule of Quay"), ("ftp_proxy", "proxy of Quay")):
        assert any(key in said and what in said for said in made.warned()), key


@pytest.mark.parametrize(
    ("seconds", "start", "schedule"),
    [
        (3600, "2026-01-05T02:30:00Z", "30 * * * *"),
        (21600, "2026-01-05T14:05:00Z", "5 2,8,14,20 * * *"),
        (604800, "2026-01-04T00:00:00Z", "0 0 * * 0"),
        (18000, "2026-01-05T02:30:00Z", "5h"),
        (600, "2026-01-05T02:30:00Z", "10m"),
        (86400, "soon", "24h"),
    ],
)
def test_an_interval_that_divides_a_day_keeps_its_time(
    imported: Import, seconds: int, start: str, schedule: str
) -> None:
    made = imported(
        f'[{{"external_reference": "quay.io/a/b", "sync_interval": {seconds}, "sync_start_date": "{start}"}}]'
    )
    assert schedule in made.result.text


def test_one_mirror_and_a_list_are_read_as_the_api_returns_them(imported: Import) -> None:
    one = imported('{"external_reference": "quay.io/a/b:1", "repository": "b", "namespace": "n"}')
    assert [mirror.repository for mirror in one.fleet.mirrors] == ["n/b"]
    assert "names a tag, which Quay ignores" in one.said()
    assert imported('[{"external_reference": ""}]').warned() != []
