"""What goes wrong while syncing: a clear error or a held tag, never a half-made version."""

from __future__ import annotations

from pathlib import Path

import pytest

from registry_sync.domain.digests import Digest
from registry_sync.errors import (
    AuthenticationFailed,
    ConfigurationError,
    InvalidReference,
    NotFound,
    NothingSynced,
    ProtocolError,
    RateLimited,
    RecordNotFound,
    RegistryError,
    RepositoryUnavailable,
    ServerUnavailable,
)
from registry_sync.oci.auth.credentials import Credentials
from support.filling import push
from support.hostile_registry import HostileRegistry, errors_reply, json_reply, reply
from support.images import RepositoryContent
from support.memory_registry import MemoryRegistry, refusal
from support.registry import PASSWORD, USERNAME, RegistryServer
from support.shapes import documented_example, wide
from support.syncing import Installation


@pytest.fixture
def registry() -> MemoryRegistry:
    return MemoryRegistry()


def layer_of(content: RepositoryContent, tag: str) -> Digest:
    """A layer that only ``tag`` needs."""
    others = content.closure([name for name in content.tags if name != tag])
    return next(digest for digest in content.closure([tag]).blobs if digest not in others.blobs)


def versions_of(here: Installation, name: str) -> int | None:
    return here.database.repositories.by_name(name).latest_number


def test_a_blob_of_other_bytes_holds_its_tag_and_no_other(here: Installation, registry: MemoryRegistry) -> None:
    content = wide(0.01, tags=5)
    push(registry, "bad-blob", content)
    bad = layer_of(content, "build-3")
    registry.damage_blob(bad)
    version = here.sync("bad-blob", registry.url, "bad-blob")
    assert version is not None
    kept = content.closure([name for name in content.tags if name != "build-3"])
    assert here.database.versions.tags(version.repository_id) == kept.tags
    assert not version.is_complete
    assert [(hold.tag, hold.digest) for hold in version.holds] == [("build-3", None)]
    assert "DigestMismatch" in version.holds[0].reason
    assert version.summary.counts()["present"]["docker.blob"] == len(kept.blobs)
    assert not here.store.has(bad)


def test_a_tag_that_moved_to_something_broken_stays_at_its_last_good_digest(
    here: Installation, registry: MemoryRegistry
) -> None:
    content = wide(0.01, tags=3)
    push(registry, "moved-bad", content.closure(["build-0", "build-1"]))
    first = here.sync("moved-bad", registry.url, "moved-bad")
    assert first is not None
    push(registry, "moved-bad", content.closure(["build-2"]))
    manifest = content.manifests[content.tags["build-2"]]
    registry.push_manifest("moved-bad", "build-0", manifest.media_type, manifest.data)
    registry.delete_tag("moved-bad", "build-2")
    registry.damage_blob(layer_of(content, "build-2"))
    with pytest.raises(NothingSynced, match="build-0"):
        here.sync("moved-bad", registry.url, "moved-bad")
    assert versions_of(here, "moved-bad") == 1
    registry.delete_tag("moved-bad", "build-1")
    version = here.sync("moved-bad", registry.url, "moved-bad")
    assert version is not None
    assert here.database.versions.tags(version.repository_id) == {"build-0": content.tags["build-0"]}
    assert [(hold.tag, hold.digest) for hold in version.holds] == [("build-0", content.tags["build-0"])]


def test_when_every_tag_is_hurt_the_sync_fails_and_says_why(here: Installation, registry: MemoryRegistry) -> None:
    content = wide(0.01, tags=1)
    push(registry, "all-bad", content)
    registry.damage_blob(layer_of(content, "build-0"))
    with pytest.raises(NothingSynced, match="DigestMismatch"):
        here.sync("all-bad", registry.url, "all-bad")
    assert versions_of(here, "all-bad") is None


@pytest.mark.rule("A6.18")
def test_a_manifest_that_is_gone_between_listing_and_fetching_is_excluded(
    here: Installation, registry: MemoryRegistry
) -> None:
    content = wide(0.01, tags=4)
    push(registry, "vanishing", content)

    def before(stage: str, _run: object) -> None:
        if stage == "fetch_manifests":
            registry.delete_manifest("vanishing", content.tags["build-2"])

    version = here.sync("vanishing", registry.url, "vanishing", before=before)
    assert version is not None
    assert sorted(here.database.versions.tags(version.repository_id)) == ["build-0", "build-1", "build-3"]
    assert version.is_complete, "a tag that its owner deleted is no hold"


@pytest.mark.rule("A6.18")
def test_a_tag_that_moves_between_listing_and_fetching_is_followed_when_its_manifest_is_gone(
    here: Installation, registry: MemoryRegistry
) -> None:
    content = wide(0.01, tags=2)
    push(registry, "moving", content)

    def before(stage: str, _run: object) -> None:
        if stage == "fetch_manifests":
            registry.delete_manifest("moving", content.tags["build-1"])
            manifest = content.manifests[content.tags["build-0"]]
            registry.push_manifest("moving", "build-1", manifest.media_type, manifest.data)

    version = here.sync("moving", registry.url, "moving", before=before)
    assert version is not None
    tags = here.database.versions.tags(version.repository_id)
    assert tags == dict.fromkeys(("build-0", "build-1"), content.tags["build-0"])


@pytest.mark.rule("A6.14")
def test_a_child_that_is_missing_holds_the_index_that_names_it(here: Installation, registry: MemoryRegistry) -> None:
    content = documented_example()
    push(registry, "sparse", content)
    child = content.tags["v1"]
    index_only = content.manifests[content.tags["linux"]].children[0]
    registry.delete_manifest("sparse", index_only)
    version = here.sync("sparse", registry.url, "sparse")
    assert version is not None
    held = {hold.tag for hold in version.holds}
    assert held == {"latest", "linux"}
    assert here.database.versions.tags(version.repository_id)["v1"] == child


def test_a_registry_that_is_not_there_is_a_temporary_error_that_names_it(here: Installation) -> None:
    with pytest.raises(ServerUnavailable, match=r"127\.0\.0\.1:9") as caught:
        here.sync("nowhere", "http://127.0.0.1:9", "some/name")
    assert caught.value.is_temporary
    assert versions_of(here, "nowhere") is None


def test_a_repository_that_does_not_exist_is_named(here: Installation, registry: MemoryRegistry) -> None:
    with pytest.raises(NotFound, match="no/such") as caught:
        here.sync("missing", registry.url, "no/such")
    assert (caught.value.kind, caught.value.is_temporary) == ("repository", False)


@pytest.mark.parametrize(
    ("credentials", "error"),
    [(None, RepositoryUnavailable), (Credentials(username=USERNAME, password="mistyped"), AuthenticationFailed)],
)
def test_wrong_credentials_are_final_and_name_the_registry_without_the_password(
    here: Installation, tmp_path: Path, credentials: Credentials | None, error: type[RegistryError]
) -> None:
    with RegistryServer(tmp_path / "private", basic_auth=True) as private:
        push(private, "secret/app", wide(0.01, tags=1))
        with pytest.raises(error, match=r"127\.0\.0\.1") as caught:
            here.sync("private", private.url, "secret/app", credentials=credentials)
        assert not caught.value.is_temporary
        assert "mistyped" not in str(caught.value)
        good = Credentials(username=USERNAME, password=PASSWORD)
        assert here.sync("private", private.url, "secret/app", credentials=good) is not None


def test_a_tag_list_that_is_not_json_fails_the_listing(here: Installation) -> None:
    with HostileRegistry() as hostile:
        hostile.on("GET", "/v2/", json_reply({}))
        hostile.on("GET", "/v2/app/tags/list", reply(200, "<html>welcome</html>", content_type="text/html"))
        with pytest.raises(ProtocolError, match="a web page"):
            here.sync("not-json", hostile.base, "app")
    assert versions_of(here, "not-json") is None


def test_a_listing_that_breaks_off_on_a_later_page_never_reads_as_deleted(
    here: Installation, registry: MemoryRegistry
) -> None:
    content = wide(0.01, tags=3)
    push(registry, "paged", content)
    assert here.sync("paged", registry.url, "paged") is not None
    with HostileRegistry() as hostile:
        hostile.on(
            "GET",
            "/v2/paged/tags/list",
            json_reply(
                {"name": "paged", "tags": ["build-0"]},
                headers=[("Link", '</v2/paged/tags/list?n=1&last=build-0>; rel="next"')],
            ),
            errors_reply(403, "DENIED"),
        )
        with pytest.raises(Exception, match="paged"):
            here.sync("paged", hostile.base, "paged")
    assert versions_of(here, "paged") == 1
    assert len(here.database.versions.tags(here.database.repositories.by_name("paged").id)) == 3


def test_a_mirror_is_never_emptied_by_filters_that_match_nothing(here: Installation, registry: MemoryRegistry) -> None:
    push(registry, "emptied", wide(0.01, tags=2))
    assert here.sync("emptied", registry.url, "emptied") is not None
    with pytest.raises(NothingSynced, match="lose all of its 2 tags"):
        here.sync("emptied", registry.url, "emptied", include_tags=("nothing-*",))
    assert versions_of(here, "emptied") == 1


def test_a_registry_that_limits_is_raised_with_its_own_delay(here: Installation) -> None:
    with HostileRegistry() as hostile:
        hostile.on("GET", "/v2/busy/tags/list", errors_reply(429, "TOOMANYREQUESTS", headers=[("Retry-After", "120")]))
        with pytest.raises(RateLimited) as caught:
            here.sync("busy", hostile.base, "busy")
    assert caught.value.retry_after_seconds == 120


def test_a_temporary_failure_of_one_manifest_is_raised_and_a_retry_continues(
    here: Installation, registry: MemoryRegistry
) -> None:
    content = wide(0.01, tags=4)
    registry.serve("flaky", content)
    registry.on("GET", "manifest", content.tags["build-1"], refusal(503, "UNAVAILABLE"))
    with pytest.raises(ServerUnavailable):
        here.sync("flaky", registry.url, "flaky", run_id="one")
    run = here.database.runs.page().items[0]
    counts = here.database.runs.progress(run.id)
    assert (counts.resolved_tag_count, counts.pending_tag_count) == (3, 1), "the others are done"
    assert versions_of(here, "flaky") is None
    version = here.sync("flaky", registry.url, "flaky", run_id="two", is_last_try=True)
    assert version is not None
    assert [hold.tag for hold in version.holds] == ["build-1"]
    assert "503" in version.holds[0].reason or "ServerUnavailable" in version.holds[0].reason
    assert len(here.database.versions.tags(version.repository_id)) == 3


@pytest.mark.parametrize(
    ("request_", "error", "match"),
    [
        ({"url": "ftp://x", "upstream_name": "a"}, InvalidReference, "scheme"),
        ({"url": "https://user:pw@x", "upstream_name": "a"}, InvalidReference, "connection"),
        ({"url": "https://x", "upstream_name": "UPPER"}, InvalidReference, "lower-case"),
        ({"url": "https://x", "upstream_name": None}, ConfigurationError, "upstream_name is missing"),
        ({"url": None, "upstream_name": "a"}, ConfigurationError, "url is missing"),
        ({"url": None, "upstream_name": None}, ConfigurationError, "where to sync from"),
        ({"url": None, "upstream_name": None, "remote": "nobody"}, RecordNotFound, "nobody"),
        ({"url": "https://x", "upstream_name": "a", "include_tags": ("..",)}, InvalidReference, r"\.\."),
        ({"url": "https://x", "upstream_name": "a", "policy": "never"}, ConfigurationError, "immediate"),
        ({"url": "https://x", "upstream_name": "a", "mode": "both"}, ConfigurationError, "mirror"),
        ({"url": "https://x", "upstream_name": "a", "download_concurrency": "0"}, ConfigurationError, "1 to 100"),
        ({"url": "https://x", "upstream_name": "a", "ssl_validation": "maybe"}, ConfigurationError, "true or false"),
    ],
)
def test_a_request_that_makes_no_sense_is_refused_before_anything_is_written(
    here: Installation, request_: dict[str, object], error: type[Exception], match: str
) -> None:
    with pytest.raises(error, match=match):
        here.sync("refused", **request_)  # type: ignore[arg-type]
    with pytest.raises(RecordNotFound):
        here.database.repositories.by_name("refused")
    assert here.database.remotes.page().total_count == 0
