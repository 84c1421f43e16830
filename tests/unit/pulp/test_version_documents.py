"""A content summary is the object that Pulp documents, with no word about what is missing."""

from __future__ import annotations

from hypothesis import given
from hypothesis import strategies as st

from registry_sync.domain.records import ContentSummary
from registry_sync.pulp.hrefs import CONTENT_PATHS
from registry_sync.pulp.version_documents import summary_document

COUNTS = st.dictionaries(st.sampled_from(sorted(CONTENT_PATHS)), st.integers(0, 10**6))
HREF = "/pulp/api/v3/repositories/docker/docker/5b9e1a0e-33d8-44b8-a8f7-2b8f4f0c6b7d/versions/1/"


def test_a_first_sync_reads_as_documented() -> None:
    present = {"docker.blob": 31, "docker.manifest": 21, "docker.tag": 8}
    content = "/pulp/api/v3/content/docker"
    assert summary_document(ContentSummary(added=present, present=present), HREF) == {
        "added": {
            "docker.blob": {"count": 31, "href": f"{content}/blobs/?repository_version_added={HREF}"},
            "docker.manifest": {"count": 21, "href": f"{content}/manifests/?repository_version_added={HREF}"},
            "docker.tag": {"count": 8, "href": f"{content}/tags/?repository_version_added={HREF}"},
        },
        "present": {
            "docker.blob": {"count": 31, "href": f"{content}/blobs/?repository_version={HREF}"},
            "docker.manifest": {"count": 21, "href": f"{content}/manifests/?repository_version={HREF}"},
            "docker.tag": {"count": 8, "href": f"{content}/tags/?repository_version={HREF}"},
        },
        "removed": {},
    }


def test_what_was_removed_links_to_what_was_removed() -> None:
    summary = summary_document(ContentSummary(removed={"docker.tag": 2}), HREF)
    assert summary["removed"] == {
        "docker.tag": {"count": 2, "href": f"/pulp/api/v3/content/docker/tags/?repository_version_removed={HREF}"}
    }


def test_an_empty_summary_has_three_empty_parts() -> None:
    assert summary_document(ContentSummary(), HREF) == {"added": {}, "present": {}, "removed": {}}
    assert ContentSummary().counts() == {"added": {}, "present": {}, "removed": {}}


def test_the_types_stand_in_the_documented_order_whatever_order_they_come_in() -> None:
    summary = ContentSummary(present={"docker.tag": 1, "docker.manifest": 1, "docker.blob": 1})
    assert list(summary_document(summary, HREF)["present"]) == ["docker.blob", "docker.manifest", "docker.tag"]


@given(added=COUNTS, present=COUNTS, removed=COUNTS)
def test_a_type_without_units_is_omitted_and_every_other_keeps_its_count(
    added: dict[str, int], present: dict[str, int], removed: dict[str, int]
) -> None:
    summary = ContentSummary(added, present, removed)
    document, counts = summary_document(summary, HREF), summary.counts()
    for part, given_counts in (("added", added), ("present", present), ("removed", removed)):
        expected = {kind: count for kind, count in given_counts.items() if count}
        assert {kind: entry["count"] for kind, entry in document[part].items()} == expected
        assert counts[part] == expected
