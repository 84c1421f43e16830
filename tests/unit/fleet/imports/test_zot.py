"""Configurations of zot, imported."""

from __future__ import annotations

from registry_sync.domain.remote import Policy

from .conftest import Import

FILE = """\
{
\t"storage": {"rootDirectory": "/var/lib/registry"},
\t"extensions": {"sync": {
\t\t"credentialsFile": "/etc/zot/creds.json",
\t\t"registries": [
\t\t\t{"URLs": ["https://b:hunter2@reg.example.net", "https://b.org"], "PollInterval": "6h", "onlySigned": true,
\t\t\t "tlsVerify": false, "maxRetries": 5, "reqConcurrent": 2, "credentialHelper": "gcp",
\t\t\t "content": [
\t\t\t  {"prefix": "/infra/**", "destination": "/m"},
\t\t\t  {"prefix": "/team/app", "destination": "/mirror", "tags": {"regex": "^4\\\\.", "excludeRegex": "-rc$"}},
\t\t\t  {"prefix": "team/db", "destination": "/db", "stripPrefix": true, "tags": {"regex": "^1.25$", "semver": true}},
\t\t\t  {"prefix": "team/db", "tags": {"regex": ""}},
\t\t\t  {"prefix": "team/all"}, {"prefix": "team/all", "destination": "/other"}
\t\t\t ], "pollintervall": "1h"},
\t\t\t{"urls": ["http://plain.example.net:5000"], "onDemand": true, "preserveDigest": true,
\t\t\t "content": [{"prefix": "a/b"}]},
\t\t\t{"urls": ["https://hub.example.net"], "onDemand": true, "preserveDigest": true}
\t\t]
\t}}
}
"""


def test_literal_prefixes_become_mirrors(imported: Import) -> None:
    made = imported(FILE)
    assert [mirror.repository for mirror in made.fleet.mirrors] == ["mirror/team/app", "db", "team/all", "a/b"]
    assert made.selected("mirror/team/app", ["4.1", "4.1-rc", "4.1-rc1", "14.1", "5"]) == ["4.1", "4.1-rc1"]
    assert made.selected("db", ["1.25", "1.26", "1.25.3"]) == ["1.25"]
    assert made.options("team/all") == {}
    app, plain = made.mirror("mirror/team/app"), made.mirror("a/b")
    assert app.schedule is not None
    assert (app.schedule.cron, plain.schedule, app.retries) == ("0 */6 * * *", None, 5)
    assert app.remote is not None
    assert plain.remote is not None
    assert (app.remote.ssl_validation, app.remote.policy) == (False, Policy.IMMEDIATE)
    assert (str(plain.remote.url), plain.remote.policy) == ("http://plain.example.net:5000", Policy.ON_DEMAND)
    assert app.remote.conn_id == "reg_example_net"


def test_what_cannot_be_carried_over_is_said_with_its_line(imported: Import) -> None:
    made = imported(FILE)
    for line, text in (
        (6, "the other 1 of its urls"),
        (6, "onlySigned has no counterpart"),
        (6, "digests change"),
        (7, "ssl_validation is false"),
        (7, "the helper 'gcp' has no counterpart"),
        (9, "'/infra/**' selects repositories by a glob"),
        (11, "tags that are dates"),
        (12, "an empty regex selects nothing"),
        (13, "the first entry alone counts"),
        (14, "a registry of zot has no key 'pollintervall'"),
        (15, "pulling others has no counterpart"),
        (17, "hub.example.net has no content"),
    ):
        assert any(said.startswith(f"theirs.yaml:{line}: warning: ") and text in said for said in made.warned()), text
    assert "hunter2" not in made.said() + made.result.text
    assert "login and password as in /etc/zot/creds.json, if it has the host; host_concurrency 2" in made.said()


def test_a_bare_interval_is_nanoseconds_and_yaml_is_read_as_well(imported: Import) -> None:
    made = imported(
        """
        extensions:
          sync:
            enable: false
            registries:
              - {urls: [reg.example.net], pollInterval: 7200000000000, content: [{prefix: a/b}]}
        """
    )
    schedule = made.mirror("a/b").schedule
    assert schedule is not None
    assert schedule.cron == "0 */2 * * *"
    assert "sync is not enabled there" in made.said()


def test_a_login_by_oauth2_has_no_counterpart_and_other_new_keys_need_none(imported: Import) -> None:
    done = imported("""\
        {"extensions": {"sync": {"registries": [{
          "urls": ["https://quay.io"], "manifestCheckInterval": "5m", "responseHeaderTimeout": "5s",
          "credentialHelper": "oauth2", "oauth2CredentialHelper": {"tokenURL": "https://sts.example.net"},
          "content": [{"prefix": "a/b"}]}]}}}
        """)
    assert done.result.mirror_count == 1
    assert "oauth2CredentialHelper has no counterpart" in done.said()
    assert "has no key" not in done.said()
