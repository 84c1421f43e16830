"""Claims of the explanations and guides about whole syncs, tried with the DAG as it is delivered."""

from __future__ import annotations

import os
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import TYPE_CHECKING

import pytest

from registry_sync.hooks.stores import open_blobs, open_database
from support.filling import push
from support.images import ContentBuilder, RepositoryContent
from support.registry import RegistryServer

if TYPE_CHECKING:
    from support.dag_runs import InProcessSync

PLUGINS = Path(__file__).parents[2] / "plugins"
#: The app made where no distribution of that name is installed, as Airflow makes it.
WITHOUT_DISTRIBUTION = """
import importlib.metadata, sys

def version(name, installed=importlib.metadata.version):
    if name == "registry-sync":
        raise importlib.metadata.PackageNotFoundError(name)
    return installed(name)

importlib.metadata.version = version
from registry_sync.plugin import RegistrySyncPlugin
apps = RegistrySyncPlugin().fastapi_apps
print([app["url_prefix"] for app in apps])
"""


def content() -> RepositoryContent:
    """Tags ``old``, ``new`` and ``odd``, each on an image of its own with a layer."""
    build = ContentBuilder(seed=12)
    for name in ("old", "new", "odd"):
        build.tag(name, build.image([build.blob(700)]))
    return build.content()


@pytest.fixture
def registry(tmp_path: Path) -> Iterator[RegistryServer]:
    with RegistryServer(tmp_path / "registry") as server:
        push(server, "team/app", content())
        yield server


def missing_blob_count(repository: str) -> int:
    with open_database() as database:
        return database.versions.missing_blob_count(database.repositories.by_name(repository).id)


def test_an_immediate_sync_completes_what_an_on_demand_one_left(
    sync_in_process: InProcessSync, registry: RegistryServer
) -> None:
    """explanation/versions.md: it downloads the missing blobs even when no tag moved, and makes no new version."""
    conf = {"repository": "later", "url": registry.url, "upstream_name": "team/app"}
    first = sync_in_process(**conf, policy="on_demand")
    assert first.version is not None
    assert first.version["number"] == 1
    assert missing_blob_count("later") == 3, "the layers"
    second = sync_in_process(**conf, policy="immediate")
    assert second.state == "success"
    assert second.version is None
    assert second.xcom("commit_version")["unchanged_version"] == first.version
    assert missing_blob_count("later") == 0
    assert len(list(open_blobs().digests())) == 6


def test_a_mirror_after_additive_syncs_removes_what_those_kept(
    sync_in_process: InProcessSync, registry: RegistryServer
) -> None:
    """how-to/mirror-or-additive.md: additive keeps what is gone, and the next mirror lets go of it."""
    conf = {"repository": "kept", "url": registry.url, "upstream_name": "team/app"}
    sync_in_process(**conf, mode="additive", tags=["old"])
    both = sync_in_process(**conf, mode="additive", tags=["n*"]).version
    assert both is not None
    assert both["content_summary"]["present"]["docker.tag"]["count"] == 2
    mirrored = sync_in_process(**conf, mode="mirror", tags=["n*"]).version
    assert mirrored is not None
    assert mirrored["content_summary"]["present"]["docker.tag"]["count"] == 1
    assert mirrored["content_summary"]["removed"]["docker.blob"]["count"] == 2


def test_a_typing_error_in_a_filter_does_not_empty_a_mirror(
    sync_in_process: InProcessSync, registry: RegistryServer
) -> None:
    """how-to/schedule-a-sync.md: a sync whose filters let nothing in fails."""
    conf = {"repository": "filtered", "url": registry.url, "upstream_name": "team/app"}
    assert sync_in_process(**conf).state == "success"
    assert sync_in_process(**conf, tags=["newest*"]).state == "failed"
    with open_database() as database:
        assert database.repositories.by_name("filtered").latest_number == 1


def test_a_tag_that_is_requested_by_name_and_does_not_exist_is_excluded(
    sync_in_process: InProcessSync, registry: RegistryServer
) -> None:
    """how-to/schedule-a-sync.md: plain names are asked for one by one, and the repository is not listed."""
    run = sync_in_process(
        repository="named", url=registry.url, upstream_name="team/app", tags=["old", "never-was"], exclude_tags=["odd"]
    )
    assert run.version is not None
    assert run.version["content_summary"]["present"]["docker.tag"]["count"] == 1
    assert registry.log().tag_page_count == 0


def test_a_remote_alone_is_used_as_it_is_and_overridden_for_the_run(
    sync_in_process: InProcessSync, registry: RegistryServer
) -> None:
    """reference/dag-parameters.md: what is given beside the name of a remote holds for this run only."""
    sync_in_process(repository="first", url=registry.url, upstream_name="team/app", remote="source", tags=["old"])
    run = sync_in_process(repository="second", remote="source", tags=["new", "odd"])
    assert run.version is not None
    assert run.version["content_summary"]["present"]["docker.tag"]["count"] == 2
    with open_database() as database:
        assert database.remotes.by_name("source").spec.include_tags == ("old",)


def test_the_rest_api_is_there_with_the_plugins_folder_alone(tmp_path: Path) -> None:
    """how-to/install-into-an-existing-airflow.md: it asks nothing of a distribution that a folder does not have."""
    kept = {name: value for name, value in os.environ.items() if not name.startswith(("AIRFLOW", "PYTHONPATH"))}
    done = subprocess.run(
        [sys.executable, "-W", "ignore", "-c", WITHOUT_DISTRIBUTION],
        env={**kept, "AIRFLOW_HOME": str(tmp_path), "PYTHONPATH": str(PLUGINS)},
        capture_output=True,
        text=True,
        check=False,
    )
    assert done.returncode == 0, done.stderr
    assert done.stdout.splitlines()[-1] == "['/pulp']"
