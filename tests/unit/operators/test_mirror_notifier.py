"""When the notifier looks into the database at all: most tasks of a fleet end without news."""

from __future__ import annotations

from typing import Any

import pytest

from registry_sync.errors import ConfigurationError
from registry_sync.operators.commit_version import CommitVersionOperator
from registry_sync.operators.fetch_blobs import FetchBlobsOperator
from registry_sync.operators.fetch_manifests import FetchManifestsOperator
from registry_sync.operators.mirror_notifier import MirrorNotifier
from registry_sync.operators.plan_blobs import PlanBlobsOperator
from support.task_contexts import TaskContext

BETWEEN = (FetchManifestsOperator, PlanBlobsOperator, FetchBlobsOperator)


@pytest.fixture(autouse=True)
def no_database(monkeypatch: pytest.MonkeyPatch) -> None:
    """Whoever opens the database fails."""
    monkeypatch.setenv("AIRFLOW__REGISTRY_SYNC__SQL_ALCHEMY_CONN", "nonsense://")


def ended(operator: type[Any], **more: Any) -> Any:
    given = {"shard": {}} if operator in (FetchManifestsOperator, FetchBlobsOperator) else {}
    return {**TaskContext().given(), "task": operator(task_id="stage", **given), **more}


@pytest.mark.parametrize("operator", BETWEEN)
def test_the_success_of_a_stage_before_the_commit_is_no_news_and_its_failure_may_be(operator: type[Any]) -> None:
    notify = MirrorNotifier(to="mail")
    notify.notify(ended(operator))
    with pytest.raises(ConfigurationError):
        notify.notify(ended(operator, exception=ValueError()))


def test_the_success_of_a_commit_may_be_news() -> None:
    with pytest.raises(ConfigurationError):
        MirrorNotifier(to="mail").notify(ended(CommitVersionOperator))


def test_where_no_file_says_who_is_notified_nobody_is() -> None:
    MirrorNotifier().notify(ended(CommitVersionOperator))
