"""The first task of a sync whose upstream was mistyped, and of the one that corrects it."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any

import pytest

from registry_sync.db.database import Database
from registry_sync.domain.runs import RunKey, RunState
from registry_sync.errors import ServerUnavailable
from registry_sync.operators.list_tags import ListTagsOperator
from registry_sync.sync.open_run import SyncRequest, open_run
from support.hostile_registry import HostileRegistry, errors_reply
from support.task_contexts import TaskContext


@dataclass
class DagRuns(TaskContext):
    """``states`` has those of other DAG runs as Airflow knows them."""

    states: tuple[str, ...] = ()

    def get_dr_count(self, *, states: list[str], **_which: Any) -> int:  # type: ignore[override]
        return len(set(states) & set(self.states))


def list_tags(context: TaskContext, url: str, **said: Any) -> None:
    """The task, for a registry that serves nobody."""
    operator = ListTagsOperator(
        task_id="list_tags", repository="app", url=url, upstream_name="team/app", trust_triggers=True, **said
    )
    with pytest.raises(ServerUnavailable):
        operator.execute(context.given())  # type: ignore[arg-type]


@pytest.fixture
def away() -> Iterator[str]:
    """A registry that is away for an hour and says so, which is not waited for."""
    with HostileRegistry() as registry:
        registry.on_everything(errors_reply(503, "UNAVAILABLE", headers=[("Retry-After", "3600")]))
        yield registry.base


@pytest.fixture
def mistyped(database: Database) -> None:
    """A sync that waits to be tried again."""
    request = SyncRequest("app", url="http://registry.invalid", upstream_name="team/ap", include_tags=("3.*",))
    open_run(database, RunKey("registry_sync", "typed"), request)


def test_a_sync_whose_dag_run_is_lost_does_not_stand_in_the_way(database: Database, mistyped: None, away: str) -> None:
    with pytest.raises(Exception, match=r"OtherUpstream.*is under way"):
        list_tags(DagRuns(states=("running",)), away)
    list_tags(DagRuns(), away)
    assert database.remotes.by_name("app").spec.upstream_name == "team/app"
    assert database.runs.by_key(RunKey("registry_sync", "typed")).state is RunState.CANCELED


def test_the_log_says_what_is_stored_with_the_remote_and_used(
    database: Database, mistyped: None, away: str, capsys: pytest.CaptureFixture[str]
) -> None:
    list_tags(DagRuns(), away, exclude_tags="*-rc*")
    assert "only the tags 3.*; without the tags *-rc*" in capsys.readouterr().out
