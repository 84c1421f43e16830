"""``ListTagsOperator``: begins a sync, and ends it at once when nothing changed."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING, Any

from airflow.sdk import BaseOperator

from registry_sync.operators.retry import RegistryRetryPolicy
from registry_sync.operators.stage import SYNC_RUN_KEY, Stage, open_stage, run_key, skip
from registry_sync.operators.template_values import as_list, as_text

if TYPE_CHECKING:
    from airflow.sdk import Context

    from registry_sync.domain.records import RemoteSpec
    from registry_sync.domain.runs import SyncRun
    from registry_sync.sync.list_tags import TagsListed


class ListTagsOperator(BaseOperator):
    """Lists the tags of a remote, resolves each with one HEAD and compares them with the latest version.

    Gives one map entry per shard of tags that are new or moved, for ``FetchManifestsOperator.expand(shard=…)``.
    When the latest version equals the upstream, every later task of the run is skipped and no version is made.

    :param repository: name of the repository to sync into; created when it does not exist
    :param remote: name of the remote. An existing one is used as it is; with ``url`` and ``upstream_name`` it is
        created or changed, and its default is the repository's name
    :param url: address of the registry, such as ``https://quay.io``
    :param upstream_name: name of the repository on that registry, such as ``library/hello-world``
    :param tags: tags to include, names or globs, as a list or text with commas; None for all
    :param exclude_tags: tags to leave out, likewise
    :param policy: ``immediate``, ``on_demand`` or ``streamed``; None for the remote's own
    :param mode: ``mirror`` to equal the upstream, ``additive`` to keep what is gone there
    :param conn_id: Airflow connection with the credentials; None for the remote's own, or anonymous
    :param download_concurrency: requests at once in each task; None for the remote's own
    :param ssl_validation: whether certificates are checked; None for the remote's own
    :param platforms: only these entries of indexes, such as ``linux/amd64``, as a list or text with commas; None for
        the remote's own
    :param include_referrers: whether signatures and other referrers come along; None for the remote's own
    """

    template_fields: Sequence[str] = (
        "repository",
        "remote",
        "url",
        "upstream_name",
        "tags",
        "exclude_tags",
        "policy",
        "mode",
        "conn_id",
        "download_concurrency",
        "ssl_validation",
        "platforms",
        "include_referrers",
    )
    ui_color = "#e8f4f8"

    def __init__(
        self,
        *,
        repository: str,
        remote: str | None = None,
        url: str | None = None,
        upstream_name: str | None = None,
        tags: Sequence[str] | str | None = None,
        exclude_tags: Sequence[str] | str | None = None,
        policy: str | None = None,
        mode: str = "mirror",
        conn_id: str | None = None,
        download_concurrency: int | str | None = None,
        ssl_validation: bool | str | None = None,
        platforms: Sequence[str] | str | None = None,
        include_referrers: bool | str | None = None,
        **kwargs: Any,
    ) -> None:
        kwargs.setdefault("retry_policy", RegistryRetryPolicy())
        super().__init__(**kwargs)
        self.repository = repository
        self.remote = remote
        self.url = url
        self.upstream_name = upstream_name
        self.tags = tags
        self.exclude_tags = exclude_tags
        self.policy = policy
        self.mode = mode
        self.conn_id = conn_id
        self.download_concurrency = download_concurrency
        self.ssl_validation = ssl_validation
        self.platforms = platforms
        self.include_referrers = include_referrers

    def execute(self, context: Context) -> list[dict[str, Any]]:
        """The shards, ``[{"sync_run": id, "shard": number, "shards": how many, "label": "61 tags"}, …]``."""
        from registry_sync.sync.list_tags import list_tags
        from registry_sync.sync.progress import format_count

        with open_stage(context) as stage:
            run, remote = self._open_run(stage, context)
            context["ti"].xcom_push(key=SYNC_RUN_KEY, value=run.id)
            self.log.info("%s from %s at %s", self.repository, remote.upstream, remote.registry)
            max_shards = stage.max_shards(remote)
            client, remote = stage.connect(remote)
            listed = list_tags(client, stage.database, run, remote, max_shards=max_shards, tell=self.log.info)
            context["ti"].xcom_push(key="summary", value=self._summary(stage, run, listed))
        if listed.is_unchanged:
            self.log.info("nothing changed since the latest version; the rest is skipped")
            skip(self.get_flat_relative_ids(upstream=False))
        return [
            {
                "sync_run": run.id,
                "shard": shard.number,
                "shards": len(listed.shards),
                "label": format_count(shard.tag_count, "tag"),
            }
            for shard in listed.shards
        ]

    def _open_run(self, stage: Stage, context: Context) -> tuple[SyncRun, RemoteSpec]:
        from registry_sync.sync.open_run import SyncRequest, open_run

        request = SyncRequest(
            repository=self.repository,
            remote=as_text(self.remote),
            url=as_text(self.url),
            upstream_name=as_text(self.upstream_name),
            include_tags=as_list(self.tags),
            exclude_tags=as_list(self.exclude_tags),
            policy=as_text(self.policy),
            mode=self.mode,
            conn_id=as_text(self.conn_id),
            download_concurrency=as_text(self.download_concurrency),
            ssl_validation=as_text(self.ssl_validation),
            platforms=as_list(self.platforms),
            include_referrers=as_text(self.include_referrers),
        )
        return stage.use(open_run(stage.database, run_key(context), request))

    def _summary(self, stage: Stage, run: SyncRun, listed: TagsListed) -> dict[str, Any]:
        from registry_sync.sync.commit_version import version_document

        latest = stage.database.versions.latest(run.repository_id) if listed.is_unchanged else None
        return {
            "listed": listed.listed_count,
            "selected": listed.selected_count,
            "changed": listed.changed_count,
            "removed": listed.removed_count,
            "skipped_names": len(listed.skipped_names),
            "unchanged_version": version_document(latest) if latest else None,
        }
