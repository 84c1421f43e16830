"""Runs that many ask for, of which one is enough: for the API server.

Whoever asks wants a run that begins after now. One that is queued will do for all of them, so that no more than one is
queued, and none of them is told of a run that has begun and may have looked already.
"""

from __future__ import annotations

import threading
import time
from datetime import datetime, timezone
from typing import Any

from cachetools import LRUCache

from registry_sync.db.engine import FOREIGN_ERROR
from registry_sync.errors import ConfigurationError
from registry_sync.hooks.dag_runs import trigger_run

#: How long requests for the same run are gathered, in seconds.
GATHERED_SECONDS = 5
_lock = threading.Lock()
#: Until when runs wait that this process has started, by DAG and prefix: most of a flood needs no database.
_queued_until: LRUCache[tuple[str, str], int] = LRUCache(10_000)


def trigger_joined_run(dag_id: str, prefix: str, conf: dict[str, Any], user_name: str) -> bool:
    """Sees to it that a run begins after now; False when one that is queued already will do.

    Its id is ``prefix``, which says what it is about, and the time after which it begins, at most
    :data:`GATHERED_SECONDS` from now. So however many ask, one such run is queued, and it has not begun when it is
    joined; of two processes that are asked at the same moment each may queue one. Raises as :func:`trigger_run`.
    """
    with _lock:
        return _trigger_or_join(dag_id, prefix, conf, user_name)


def _trigger_or_join(dag_id: str, prefix: str, conf: dict[str, Any], user_name: str) -> bool:
    now = time.time()
    end = (int(now) // GATHERED_SECONDS + 1) * GATHERED_SECONDS
    run_id = f"{prefix}{end}"
    if now < _queued_until.get((dag_id, prefix), 0) or _is_queued(dag_id, prefix):
        return False
    try:
        trigger_run(
            dag_id, conf, user_name, by="rest_api", run_id=run_id, run_after=datetime.fromtimestamp(end, timezone.utc)
        )
    except (ConfigurationError, FOREIGN_ERROR):
        if _is_queued(dag_id, prefix):  # another was first
            return False
        raise
    _queued_until[dag_id, prefix] = end
    return True


def _is_queued(dag_id: str, prefix: str) -> bool:
    from airflow.models import DagRun
    from airflow.utils.session import create_session

    is_joined = (DagRun.dag_id == dag_id, DagRun.state == "queued", DagRun.run_id.startswith(prefix, autoescape=True))
    with create_session() as session:
        return session.query(DagRun.id).filter(*is_joined).first() is not None


def has_dag(dag_id: str) -> bool:
    """Whether Airflow has a DAG of that id that is not gone."""
    from airflow.models import DagModel

    dag = DagModel.get_current(dag_id)
    return dag is not None and not dag.is_stale
