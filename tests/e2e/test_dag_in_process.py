"""The DAG as it is delivered, run in this process."""

from __future__ import annotations

import pytest

from support.dag_runs import InProcessSync
from support.registry import RegistryServer


def test_the_dag_makes_a_version_and_none_when_nothing_changed(
    sync_in_process: InProcessSync, upstream: RegistryServer
) -> None:
    conf = {"repository": "in-process", "url": upstream.url, "upstream_name": "library/hello-world"}
    first, second = sync_in_process(**conf), sync_in_process(**conf)
    assert first.state == second.state == "success"
    assert first.version is not None
    assert first.version["number"] == 1
    assert second.version is None
    assert second.tasks["commit_version"] == "skipped"


def test_each_test_begins_with_an_empty_installation(sync_in_process: InProcessSync, upstream: RegistryServer) -> None:
    run = sync_in_process(
        repository="in-process", url=upstream.url, upstream_name="library/hello-world", mode="additive"
    )
    assert run.version is not None
    assert run.version["number"] == 1


@pytest.mark.parametrize("name", ["library/absent", "no such name"])
def test_what_is_not_upstream_fails_the_run(
    sync_in_process: InProcessSync, upstream: RegistryServer, name: str
) -> None:
    run = sync_in_process(repository="absent", url=upstream.url, upstream_name=name)
    assert run.state == "failed"
    assert run.tasks["list_tags"] == "failed"
