"""``ListTagsOperator``: starts a sync, and ends it at once when nothing changed."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from contextlib import suppress
from dataclasses import replace
from functools import partial
from typing import TYPE_CHECKING, Any, NoReturn

from registry_sync.domain.quantities import utc_now
from registry_sync.domain.runs import request_id_of
from registry_sync.errors import ConfigurationError, OtherUpstream, RecordNotFound, RegistrySyncError
from registry_sync.hooks.dag_runs import PLAN_KEY
from registry_sync.operators.links import SYNC_LINKS, set_links
from registry_sync.operators.parameters import check_shapes, form_title, sync_request
from registry_sync.operators.run_notes import RunNote, about_sync, unchanged_summary
from registry_sync.operators.stage import RegistryRetryPolicy, Stage, TaskReport, open_stage, skip, skip_and_go_on
from registry_sync.operators.task_values import (
    SYNC_RUN_KEY,
    as_flag,
    as_text,
    dag_run_end,
    is_mapped_instance,
    only_of_this_sync,
    run_key,
    run_trigger,
    task_ids_near,
)
from registry_sync.operators.triggered import TriggeredTask

if TYPE_CHECKING:
    from airflow.sdk import Context

    from registry_sync.db.database import Database
    from registry_sync.domain.records import RepositoryVersion
    from registry_sync.domain.remote import RemoteSpec
    from registry_sync.domain.runs import SyncRun
    from registry_sync.domain.sync_plans import PlannedNames
    from registry_sync.oci.client import RegistryClient
    from registry_sync.sync.list_tags import TagsListed
    from registry_sync.sync.open_run import SyncRequest


class ListTagsOperator(TriggeredTask):
    """Lists the tags of a remote, resolves each with one HEAD and compares them with the latest version.

    Returns one map entry per shard of tags that are new or moved, for ``FetchManifestsOperator.expand(shard=…)``. When
    the latest version equals the upstream, the downstream tasks that wait for this sync alone are skipped, and no
    version is made. An instance of a mapped task skips nothing, and returns no entries.

    Each task, and each of its map indexes, starts a sync of its own.

    :param repository: name of the repository to sync into; created when it does not exist
    :param remote: name of the remote. An existing one is used as it is, and other parameters apply to this run; with
        ``url`` and ``upstream_name`` it is created, or changed by the given parameters. Default: the repository's name
    :param url: address of the registry, such as ``https://quay.io``
    :param upstream_name: name of the repository on that registry, such as ``library/hello-world``
    :param tags: tags to include, names or globs, as a list or text with commas; None for all
    :param exclude_tags: tags to exclude, likewise
    :param policy: ``immediate``, ``on_demand`` or ``streamed``; None for the remote's own
    :param mode: ``mirror`` to equal the upstream, ``additive`` to keep tags that are gone there
    :param conn_id: Airflow connection with the credentials; None for the remote's own, or anonymous
    :param download_concurrency: the most concurrent requests of each task; None for the remote's own
    :param ssl_validation: whether certificates are checked; None for the remote's own
    :param platforms: only these entries of indexes, such as ``linux/amd64``, as a list or text with commas; None for
        the remote's own
    :param include_referrers: whether signatures and other referrers are included; None for the remote's own
    :param max_total_bytes: the run stops before it downloads when the blobs that it would store are larger together;
        None for the remote's own, or no limit
    :param digest_list: from where the digests of all tags are taken at once: ``auto``, ``off``, or an API such as
        ``harbor``; None for the remote's own
    :param regex: regular expressions (RE2) for whole names of tags, as a list or text with one on each line; one must
        match where no entry of ``tags`` does
    :param regex_all: regular expressions that must all match
    :param exclude_regex: regular expressions of tags to exclude
    :param semver: a range of versions, such as ``>=3.18 <4``, or an object with ``range``, ``suffixes``,
        ``prereleases``, ``components`` and ``version_from``, as JSON in a template
    :param newest: how many of the newest versions, with their variants; or an object with ``count`` and ``of``
    :param order: what the newest are: ``version``, ``first_seen``, ``pushed`` or ``name``
    :param newer_than: only tags that are newer, such as ``90d`` or ``2026-01-31``; with order first_seen or pushed
    :param digests: digests to hold, ``sha256:…`` or ``tag@sha256:…``
    :param tag_sets: sets of these rules, of which any may select a tag, as a list of objects; ``include`` and
        ``exclude`` are names and globs there
    :param replace_upstream: whether another upstream may replace the remote's, or the repository's
    :param publish_as: base path under which clients pull the repository, such as ``team/alpine``: a distribution that
        serves its latest version, private, is created when there is none; None to publish nothing
    :param preview: whether the run only finds what a sync would do, and changes nothing; the XCom ``plan`` says it, and
        the tasks that wait for this sync are skipped. Not for a mapped task
    :param trust_triggers: whether a user who may trigger the DAG may set all of this in the parameters of a run;
        otherwise these may only create new records and sync existing ones as they are stored
    :param fetch_tasks: ids of the tasks that fetch manifests, plan blobs and fetch blobs, in this order; in a task
        group without the group's prefix. What would be one task's work is fetched here then, and the tasks that have
        nothing left to do are skipped, unless they belong to several syncs
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
        "max_total_bytes",
        "digest_list",
        "regex",
        "regex_all",
        "exclude_regex",
        "semver",
        "newest",
        "order",
        "newer_than",
        "digests",
        "tag_sets",
        "replace_upstream",
        "publish_as",
        "preview",
    )
    ui_color = "#e8f4f8"
    operator_extra_links = SYNC_LINKS

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
        max_total_bytes: int | str | None = None,
        digest_list: str | None = None,
        regex: Sequence[str] | str | None = None,
        regex_all: Sequence[str] | str | None = None,
        exclude_regex: Sequence[str] | str | None = None,
        semver: Mapping[str, Any] | str | None = None,
        newest: Mapping[str, Any] | int | str | None = None,
        order: str | None = None,
        newer_than: str | None = None,
        digests: Sequence[Any] | str | None = None,
        tag_sets: Sequence[Mapping[str, Any]] | str | None = None,
        replace_upstream: bool | str | None = None,
        publish_as: str | None = None,
        preview: bool | str = False,
        fetch_tasks: Sequence[str] = (),
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
        self.max_total_bytes = max_total_bytes
        self.digest_list = digest_list
        self.regex = regex
        self.regex_all = regex_all
        self.exclude_regex = exclude_regex
        self.semver = semver
        self.newest = newest
        self.order = order
        self.newer_than = newer_than
        self.digests = digests
        self.tag_sets = tag_sets
        self.replace_upstream = replace_upstream
        self.publish_as = publish_as
        self.preview = preview
        self.fetch_tasks = fetch_tasks

    def execute(self, context: Context) -> list[dict[str, Any]]:
        """The shards, ``[{"sync_run": id, "shard": number, "shards": how many, "label": "1/4 · 61 tags"}]``."""
        from registry_sync.domain.quantities import format_count
        from registry_sync.domain.runs import shard_label

        if self._is_dry_run(context):
            self._run_dry(context)
        done: list[str] = []
        with open_stage(context, "list_tags", partial(self._about, context)) as stage:
            run, client, remote, listed = self._list(stage, context)
            if not listed.is_unchanged and self.fetch_tasks:
                done = _fetch_here(
                    self, context, stage, client=client, run=run, remote=remote, shard_count=len(listed.shards)
                )
        if listed.is_unchanged and not is_mapped_instance(context):
            self.log.info("nothing changed since the latest version; the remaining stages are skipped")
            skip(context, only_of_this_sync(self))
        if done:
            skip_and_go_on(context, done)
        return [
            {
                "sync_run": run.id,
                "shard": shard.number,
                "shards": len(listed.shards),
                "label": shard_label(shard.number, len(listed.shards), format_count(shard.tag_count, "tag")),
            }
            for shard in listed.shards
        ]

    def _list(self, stage: Stage, context: Context) -> tuple[SyncRun, RegistryClient, RemoteSpec, TagsListed]:
        """The run, opened, with what its remote lists; its parts are pushed for the tasks that follow."""
        from registry_sync.sync.list_tags import list_tags
        from registry_sync.sync.maintenance.collect import end_lost_runs

        report = TaskReport(self.log)
        run, remote = self._open_run(stage, context)
        context["ti"].xcom_push(key=SYNC_RUN_KEY, value=run.id)
        set_links(context, run.repository_id, run.remote)
        repository = stage.database.repositories.get(run.repository_id)
        note = RunNote(about_sync(repository.name, run.key.scope))
        if run.remote_changes:
            self.log.info("%s", run.remote_changes)
            note = replace(note, details=(run.remote_changes,))
            note.push(context)
        end_lost_runs(
            stage.database.run_ends,
            partial(dag_run_end, context),
            report=report,
            repository_id=run.repository_id,
            without=run.id,
        )
        limits = "".join(f"; {limit}" for limit in remote.limits())
        self.log.info("%s from %s at %s%s", repository.name, remote.upstream, remote.url, limits)
        self._log_published(stage, run)
        max_shards = stage.max_shards(remote)
        client, remote = stage.connect(remote)
        early = None
        if run.pace is not None:  # as of a registry that is far away
            from registry_sync.sync.early_heads import begin_early

            early = begin_early(client, stage.database, run, remote)
        listed = list_tags(
            client,
            stage.database,
            run,
            remote,
            max_shards=max_shards,
            report=report,
            min_shard_bytes=stage.settings.min_shard_bytes,
            confirm_after=stage.settings.confirm_tags,
            early=early,
        )
        stage.span.record(tags__selected=listed.selected_count, tags__changed=listed.changed_count)
        latest = stage.database.versions.latest(run.repository_id) if listed.is_unchanged else None
        summary = self._summary(listed, latest)
        set_links(context, run.repository_id, run.remote, latest)
        note = self._note(note, run, listed, summary["unchanged_version"])
        if note.summary or note.details:
            note.push(context)
        context["ti"].xcom_push(key="summary", value=summary)
        if listed.is_unchanged and stage.metrics is not None:
            holds = None if latest is None else len(latest.holds)
            stage.metrics.record_success(None if latest is None else latest.number, holds, utc_now())
        return run, client, remote, listed

    def _is_dry_run(self, context: Context) -> bool:
        """Whether nothing is to be changed; of a sync requested over REST, ``conf`` says so whatever the DAG does."""
        conf = getattr(context["dag_run"], "conf", None) or {}
        is_requested = request_id_of(context["ti"].run_id) is not None
        return as_flag(self.preview, "preview") or (is_requested and as_flag(conf.get("dry_run"), "dry_run"))

    def _run_dry(self, context: Context) -> NoReturn:
        """Pushes the plan of the sync, and skips all tasks that wait for it."""
        from registry_sync.pulp.plan_documents import plan_document
        from registry_sync.sync.dry_run import plan_sync

        with open_stage(context, about=partial(self._about, context)) as stage:
            if is_mapped_instance(context):
                raise ConfigurationError("preview is not for a mapped task: run it dry for one repository at a time")
            with stage.database.copied_for_sync(self._planned_names(stage, context)) as copy:
                plan = plan_sync(
                    copy,
                    stage.blobs,
                    partial(self._start, stage, context),
                    stage.connected,
                    is_last_try=stage.is_last_try,
                    report=TaskReport(self.log),
                    confirm_after=stage.settings.confirm_tags,
                )
        self.log.info("dry run: %s", plan)
        for refusal in plan.refusals:
            self.log.warning("%s: %s", refusal.error, refusal.message)
        repository = as_text(self.repository) or ""
        summary = f"dry run, nothing was changed: {str(plan).removeprefix(f'{repository}: ')}"
        RunNote(about_sync(repository, run_key(context).scope), summary).push(context)
        context["ti"].xcom_push(key=PLAN_KEY, value=plan_document(plan))
        skip(context, only_of_this_sync(self))

    def _about(self, context: Context) -> str:
        """What the note of the run calls a sync that was refused before it had a run; empty without a name."""
        name = self.repository if isinstance(self.repository, str) else None
        return about_sync(as_text(name) or "", run_key(context).scope)

    def _note(self, note: RunNote, run: SyncRun, listed: TagsListed, unchanged: dict[str, Any] | None) -> RunNote:
        """``note`` with what the listing shows; with a summary only if no commit follows."""
        from registry_sync.domain.platforms import platforms_warning

        details = [*note.details, *listed.notes]
        if not listed.is_unchanged:
            return replace(note, details=tuple(details))
        if listed.without_platform:  # otherwise the commit lists them all
            details.append(platforms_warning(listed.without_platform, run.remote.platforms or ()))
        number = None if unchanged is None else unchanged["number"]
        return replace(note, summary=unchanged_summary(number, listed.selected_count), details=tuple(details))

    def _log_published(self, stage: Stage, run: SyncRun) -> None:
        base_path = as_text(self.publish_as)
        found = None if base_path is None else stage.database.distributions.by_base_path(base_path)
        if found is None or found.repository_id != run.repository_id:
            return
        version = "the latest version" if found.version_number is None else f"always version {found.version_number}"
        access = "private" if found.is_private else "public"
        self.log.info("published as %s (%s): clients pull %s", base_path, access, version)

    def _open_run(self, stage: Stage, context: Context) -> tuple[SyncRun, RemoteSpec]:
        from registry_sync.sync.maintenance.collect import end_lost_runs

        start = partial(self._start, stage, context)
        try:
            return stage.use(start(stage.database))
        except OtherUpstream:  # a sync that seems to be running may have lost its DAG run
            if request_id_of(context["ti"].run_id) is not None or not end_lost_runs(
                stage.database.run_ends, partial(dag_run_end, context), report=TaskReport(self.log)
            ):
                raise
            return stage.use(start(stage.database))

    def _start(self, stage: Stage, context: Context, database: Database) -> SyncRun:
        """The run in ``database``: the stage's, or the copy of a dry run."""
        from registry_sync.hooks.clients import check_connection
        from registry_sync.sync.open_run import open_run

        key, by = run_key(context), run_trigger(context)
        request_id = request_id_of(key.run_id)
        if request_id is not None:
            return self._open_requested_run(stage, context, request_id, database)
        names = type(self).template_fields
        given = {name: getattr(self, name) for name in names}
        check_shapes(given, lambda name: form_title(context, "dry_run" if name == "preview" else name))
        return open_run(
            database,
            key,
            self._request(frozenset(names)),
            authority=self.authority(context, stage.settings),
            check_connection=check_connection,
            by=by,
        )

    def _open_requested_run(self, stage: Stage, context: Context, request_id: str, database: Database) -> SyncRun:
        """The run of a sync requested over REST; of its parameters only literal values in the DAG's code count."""
        from registry_sync.sync.open_run import open_requested_run

        key, requests = run_key(context), stage.database.requests
        requested = requests.get(key.dag_id, request_id)
        try:
            literal = self._request(self.literal_fields(context))
            run = open_requested_run(database, key, requested, literal, by=run_trigger(context))
        except RegistrySyncError as refused:
            if not refused.is_temporary:
                requests.record_error(request_id, f"{type(refused).__name__}: {refused}")
            raise
        if requested.error:
            requests.record_error(request_id, None)
        return run

    def _planned_names(self, stage: Stage, context: Context) -> PlannedNames:
        """The records that the sync uses; without those of a request that were deleted."""
        from registry_sync.domain.sync_plans import PlannedNames
        from registry_sync.sync.dry_run import planned_names

        request_id = request_id_of(context["ti"].run_id)
        if request_id is None:
            return planned_names(self._request(frozenset(type(self).template_fields)))
        requested = stage.database.requests.get(context["ti"].dag_id, request_id)
        repository = stage.database.repositories.names([requested.repository_id]).get(requested.repository_id, "")
        with suppress(RecordNotFound):
            return PlannedNames(repository, (stage.database.remotes.get(requested.remote_id).spec.name,))
        return PlannedNames(repository, ())

    def _request(self, names: frozenset[str]) -> SyncRequest:
        """The request made from the fields ``names``; other fields are ignored."""
        return sync_request({name: getattr(self, name) for name in {*names, "repository", "mode"}})

    def _summary(self, listed: TagsListed, latest: RepositoryVersion | None) -> dict[str, Any]:
        unchanged = None
        if latest is not None:
            from registry_sync.pulp.version_documents import version_document

            unchanged = version_document(latest)
        return {
            "listed": listed.listed_count,
            "selected": listed.selected_count,
            "changed": listed.changed_count,
            "removed": listed.removed_count,
            "skipped_names": len(listed.skipped_names),
            "by_digest_list": listed.by_list_count,
            "not_versions": len(listed.not_versions),
            "unchanged_version": unchanged,
        }


def _fetch_here(
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
