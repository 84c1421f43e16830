"""What a listing task fetches itself, and which tasks that leaves without work."""

from __future__ import annotations

from typing import TYPE_CHECKING

from registry_sync.operators.stage import Stage, TaskReport
from registry_sync.operators.task_values import is_mapped_instance, only_of_this_sync, task_ids_near

if TYPE_CHECKING:
    from airflow.sdk import Context

    from registry_sync.domain.remote import RemoteSpec
    from registry_sync.domain.runs import SyncRun
    from registry_sync.oci.client import RegistryClient
    from registry_sync.operators.list_tags import ListTagsOperator


def fetch_here(
    task: ListTagsOperator,
    context: Context,
    stage: Stage,
    *,
    client: RegistryClient,
    run: SyncRun,
    remote: RemoteSpec,
    shard_count: int,
) -> list[str]:
    """Fetches the content of a small run: :func:`~registry_sync.sync.listed_content.fetch_listed`.

    Returns the ids of the tasks among ``fetch_tasks`` that have nothing left to do; all of them, the first alone, or
    none. None either where they serve other syncs too. Counts are pushed as XCom ``fetched``.
    """
    from registry_sync.sync.listed_content import fetch_listed

    names = task_ids_near(task, task.fetch_tasks)
    if is_mapped_instance(context) or not only_of_this_sync(task).issuperset(names):
        return []
    with stage.measured("fetch"):
        fetched = fetch_listed(
            client,
            stage.blobs,
            stage.database,
            run,
            remote,
            shard_count=shard_count,
            min_shard_bytes=stage.settings.min_shard_bytes,
            report=TaskReport(task.log),
            on_plan=stage.count_planned,
        )
    if fetched.manifests is not None:
        stage.count(manifests__fetched=fetched.manifests.manifest_count)
    if fetched.blobs is not None:
        stage.count(blobs__fetched=fetched.blobs.fetched_count, blobs__failed=fetched.blobs.failed_count)
    if fetched.counts:
        context["ti"].xcom_push(key="fetched", value=fetched.counts)
    done = names if fetched.is_whole else names[:1] if fetched.has_manifests else []
    if done:
        left = "nothing is left for" if fetched.is_whole else "blobs are left; nothing is for"
        task.log.info("fetched by this task: %s; %s %s, skipped", fetched, left, ", ".join(done))
    return done
