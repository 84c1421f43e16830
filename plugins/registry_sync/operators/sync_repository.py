"""``sync_repository``: a whole sync in a DAG, in one call.

It makes a task group of the operators of a sync, wired as in the delivered DAG ``registry_sync``. Names of arguments,
and values in the code, are checked when the DAG file is parsed; templates and XComs when the task runs.
"""

from __future__ import annotations

import inspect
import re
from collections.abc import Mapping, Sequence
from datetime import timedelta
from typing import TYPE_CHECKING, Any

from airflow.sdk import DAG, BaseOperator, TaskGroup

from registry_sync.errors import ConfigurationError, RegistrySyncError
from registry_sync.operators.commit_version import CommitVersionOperator
from registry_sync.operators.fetch_and_commit import REPOSITORY_LABEL, FetchAndCommitOperator
from registry_sync.operators.fetch_blobs import FetchBlobsOperator
from registry_sync.operators.fetch_manifests import FetchManifestsOperator
from registry_sync.operators.list_tags import ListTagsOperator
from registry_sync.operators.parameters import check_shapes
from registry_sync.operators.plan_blobs import PlanBlobsOperator
from registry_sync.operators.stage import RegistryRetryPolicy
from registry_sync.operators.task_values import as_text
from registry_sync.operators.triggered import is_literal, with_near_names
from registry_sync.operators.version_outputs import version_outlets

if TYPE_CHECKING:
    from airflow.sdk import XComArg

    #: What an argument may be: a literal value or a template, or the output of a task, also as an expanded argument.
    Text = str | XComArg | None
    Texts = Sequence[str] | str | XComArg | None
    Flag = bool | str | XComArg | None
    Number = int | str | XComArg | None
    Rule = Mapping[str, Any] | int | str | XComArg | None
    Rules = Sequence[Any] | str | XComArg | None

#: The tasks of :func:`add_stages` between a listing and a commit; a listing does their work where it is little.
FETCH_TASKS = ("fetch_manifests", "plan_blobs", "fetch_blobs")
#: Of every task, where neither the call nor the DAG's ``default_args`` have them.
TASK_DEFAULTS: Mapping[str, Any] = {
    "retries": 4,
    "retry_delay": timedelta(seconds=30),
    "retry_exponential_backoff": 2,
    "max_retry_delay": timedelta(minutes=5),
}
#: Parameters of the listing task; a test compares them, and the signature, with the options of a remote.
_OPTIONS = frozenset({*ListTagsOperator.template_fields, "trust_triggers"})
#: Parameters of the last task.
_OF_REMOVALS = frozenset({"approve_removals", "approval_timeout", "trust_triggers"})
#: Arguments of Airflow's operators that concern the first task alone, and the last one.
_OF_THE_FIRST, _OF_THE_LAST = ("trigger_rule", "inlets"), ("outlets",)
_INSTEAD = {
    "task_id": "group_id, which names the task group, or none for the repository's name",
    "task_group": "none: call it inside 'with TaskGroup(…)'",
    "task_display_name": "group_id",
    "map_index_template": "none: mapped tasks are labelled with what they work on",
}
_NOT_IN_AN_ID = re.compile(r"[^A-Za-z0-9_-]+")
_MAX_GROUP_ID = 200


def sync_repository(
    repository: Text,
    *,
    url: Text = None,
    upstream_name: Text = None,
    remote: Text = None,
    tags: Texts = None,
    exclude_tags: Texts = None,
    policy: Text = None,
    mode: Text = None,
    conn_id: Text = None,
    download_concurrency: Number = None,
    ssl_validation: Flag = None,
    platforms: Texts = None,
    include_referrers: Flag = None,
    max_total_bytes: Number = None,
    digest_list: Text = None,
    regex: Texts = None,
    regex_all: Texts = None,
    exclude_regex: Texts = None,
    semver: Rule = None,
    newest: Rule = None,
    order: Text = None,
    newer_than: Text = None,
    digests: Rules = None,
    tag_sets: Rules = None,
    replace_upstream: Flag = None,
    publish_as: Text = None,
    preview: Flag = None,
    approve_removals: Flag = None,
    approval_timeout: timedelta | None = None,
    trust_triggers: bool | None = None,
    small: bool = False,
    group_id: str | None = None,
    dag: DAG | None = None,
    default_args: Mapping[str, Any] | None = None,
    **task_arguments: Any,
) -> TaskGroup:
    """A task group that syncs one repository; other tasks may be put before and after it with ``>>``.

    May be called several times in a DAG, and inside task groups. Parameters not given are those of ``default_args``,
    then the remote's. Raises :class:`ConfigurationError` at parsing for unknown arguments and impossible values.

    :param repository: name of the repository to sync into; created when it does not exist
    :param url: address of the registry, such as ``https://quay.io``
    :param upstream_name: name of the repository on that registry, such as ``library/hello-world``
    :param remote: an existing remote in place of ``url`` and ``upstream_name``, or the name under which these are kept
    :param tags: tags to include, names or globs, as a list or text with commas; None for all
    :param exclude_tags: tags to exclude, likewise
    :param policy: ``immediate``, ``on_demand`` or ``streamed``; None for the remote's own
    :param mode: ``mirror`` (the default) to equal the upstream, ``additive`` to keep tags that are gone there
    :param conn_id: Airflow connection with the credentials; None for the remote's own, or anonymous
    :param download_concurrency: the most concurrent requests of each task; None for the remote's own
    :param ssl_validation: whether certificates are checked; None for the remote's own
    :param platforms: only these entries of indexes, such as ``linux/amd64``; None for the remote's own
    :param include_referrers: whether signatures and other referrers are included; None for the remote's own
    :param max_total_bytes: the run stops before it downloads when the blobs that it would store are larger together
    :param digest_list: from where the digests of all tags are taken at once; None for the remote's own
    :param regex: regular expressions (RE2) for whole names of tags, where no entry of ``tags`` matches
    :param regex_all: regular expressions that must all match
    :param exclude_regex: regular expressions of tags to exclude
    :param semver: a range of versions, such as ``>=3.18 <4``, or an object with it as ``range``
    :param newest: how many of the newest versions, with their variants; or an object with ``count`` and ``of``
    :param order: what the newest are: ``version``, ``first_seen``, ``pushed`` or ``name``
    :param newer_than: only tags that are newer, such as ``90d`` or ``2026-01-31``
    :param digests: digests to hold, ``sha256:…`` or ``tag@sha256:…``
    :param tag_sets: sets of these rules, of which any may select a tag
    :param replace_upstream: whether another upstream may replace the remote's, or the repository's
    :param publish_as: base path under which clients pull the repository; None to publish nothing
    :param preview: whether to find out only what a sync would do, and change nothing; not in an expanded group
    :param approve_removals: whether a mirror may remove more tags than its remote allows
    :param approval_timeout: how long one that may not waits for a person, as ``CommitVersionOperator``
    :param trust_triggers: whether a user who may trigger the DAG may set all of this in the parameters of a run
    :param small: two tasks instead of five: for small repositories, many in one DAG, and an expanded task group
    :param group_id: id of the task group; None for the repository's name, with a number where that is taken
    :param dag: the DAG; None for the one whose ``with`` block the call is in
    :param default_args: as the DAG's, for the tasks of this group alone
    :param task_arguments: of Airflow's operators, such as ``pool`` or ``retries`` (4); ``outlets`` of the last task
    """
    return _sync_group(locals(), task_arguments)


def _sync_group(given: Mapping[str, Any], task_arguments: Mapping[str, Any]) -> TaskGroup:
    """The task group for the arguments of :func:`sync_repository`."""
    options = _given(**{name: value for name, value in given.items() if name in _OPTIONS})
    removals = _given(**{name: value for name, value in given.items() if name in _OF_REMOVALS})
    _refuse_unknown(task_arguments)
    group_id, repository = given["group_id"], given["repository"]
    group = TaskGroup(
        group_id or _group_id_of(repository),
        add_suffix_on_collision=not group_id,
        tooltip=_tooltip(options),
        **_given(dag=given["dag"]),
    )
    group.default_args = {**_task_defaults(group), **group.default_args, **(given["default_args"] or {})}
    try:
        _check_values({**group.dag.default_args, **group.default_args, **options})
    except RegistrySyncError as refused:
        raise ConfigurationError(f"sync_repository({repository!r}, …): {refused}") from None
    with group:
        _add_tasks(group, options, removals, task_arguments, is_small=given["small"])
    return group


def _add_tasks(
    group: TaskGroup,
    options: Mapping[str, Any],
    removals: Mapping[str, Any],
    task_arguments: Mapping[str, Any],
    *,
    is_small: bool,
) -> None:
    """The tasks of a sync in the group whose ``with`` block is open."""
    first, each, last = _divided(task_arguments)
    each = {"dag": group.dag, "retry_policy": RegistryRetryPolicy(), **each}
    outlets = [*version_outlets(options["repository"]), *last.get("outlets", ())]
    if is_small:
        list_tags = ListTagsOperator(
            task_id="list_tags", map_index_template="{{ task.repository }}", **options, **first, **each
        )
        list_tags >> FetchAndCommitOperator(
            task_id="fetch_and_commit",
            map_index_template=f"{{{{ {REPOSITORY_LABEL} }}}}",
            outlets=outlets,
            **removals,
            **each,
        )
        return
    list_tags = ListTagsOperator(task_id="list_tags", fetch_tasks=FETCH_TASKS, **options, **first, **each)
    add_stages(list_tags, each, removals, outlets)


def add_stages(
    list_tags: ListTagsOperator,
    each: Mapping[str, Any],
    removals: Mapping[str, Any] | None = None,
    outlets: Sequence[Any] | None = None,
) -> None:
    """The four tasks that follow ``list_tags``, in the DAG and the group that are open.

    ``each`` has arguments of each task, ``removals`` those of the last one; ``outlets`` None is the assets of versions.
    """
    outlets = version_outlets() if outlets is None else outlets
    fetch_manifests = FetchManifestsOperator.partial(
        task_id="fetch_manifests", blob_tasks=["plan_blobs", "fetch_blobs"], **each
    ).expand(shard=list_tags.output)
    plan_blobs = PlanBlobsOperator(task_id="plan_blobs", **each)
    fetch_blobs = FetchBlobsOperator.partial(task_id="fetch_blobs", **each).expand(shard=plan_blobs.output)
    commit_version = CommitVersionOperator(task_id="commit_version", outlets=outlets, **(removals or {}), **each)
    fetch_manifests >> plan_blobs >> fetch_blobs >> commit_version
    fetch_manifests >> commit_version


def _given(**arguments: Any) -> dict[str, Any]:
    """The arguments that are not None; ``default_args`` apply to the others."""
    return {name: value for name, value in arguments.items() if value is not None}


def _refuse_unknown(task_arguments: Mapping[str, Any]) -> None:
    """Raises :class:`ConfigurationError` for an argument that no task of a sync takes."""
    for name, instead in _INSTEAD.items():
        if name in task_arguments:
            raise ConfigurationError(f"sync_repository makes several tasks and takes no {name}; give {instead}")
    of_airflow = set(inspect.signature(BaseOperator.__init__).parameters) - {"self", "kwargs", *_INSTEAD}
    of_syncs = set(inspect.signature(sync_repository).parameters) - {"task_arguments"}
    unknown = sorted(task_arguments.keys() - of_airflow)
    if unknown:
        raise ConfigurationError(
            f"sync_repository has no parameter {with_near_names(unknown, of_syncs | of_airflow)}; of a sync it has "
            f"{', '.join(sorted(of_syncs))}, and it takes the arguments of Airflow's operators"
        )


def _check_values(values: Mapping[str, Any]) -> None:
    """Checks the literal ones of ``values``, which the first task would refuse when it runs. Raises as a sync does."""
    from registry_sync.domain.references import RepositoryName

    if not {"url", "upstream_name", "remote"} & values.keys():
        raise ConfigurationError("say where to sync from: the name of a remote, or url and upstream_name")
    if ("url" in values) is not ("upstream_name" in values):
        missing = "upstream_name" if "url" in values else "url"
        raise ConfigurationError(f"url and upstream_name belong together: {missing} is missing")
    literal = {name: value for name, value in values.items() if is_literal(value)}
    if "repository" in literal and as_text(literal["repository"]) is None:
        raise ConfigurationError("repository is empty; give the name of the repository to sync into")
    if "repository" in literal:
        RepositoryName(str(as_text(literal["repository"])))
    check_shapes(literal, str)


def _task_defaults(group: TaskGroup) -> dict[str, Any]:
    """Those of :data:`TASK_DEFAULTS` that the DAG of a group leaves open."""
    return {name: value for name, value in TASK_DEFAULTS.items() if name not in group.dag.default_args}


def _divided(arguments: Mapping[str, Any]) -> tuple[dict[str, Any], dict[str, Any], dict[str, Any]]:
    """Arguments of the first task, of each one, and of the last."""
    first = {name: value for name, value in arguments.items() if name in _OF_THE_FIRST}
    last = {name: value for name, value in arguments.items() if name in _OF_THE_LAST}
    return first, {name: arguments[name] for name in arguments.keys() - first.keys() - last.keys()}, last


def _group_id_of(repository: Any) -> str:
    """``library_alpine`` for ``library/alpine``; ``sync`` where the name is known only when the DAG runs."""
    if not isinstance(repository, str) or not is_literal(repository):
        return "sync"
    return _NOT_IN_AN_ID.sub("_", repository.strip()).strip("_")[:_MAX_GROUP_ID] or "sync"


def _tooltip(options: Mapping[str, Any]) -> str:
    """What the graph shows of the group: the repository, and its upstream when the code names it."""
    name, url, upstream = (
        found if isinstance(found := options.get(key), str) and is_literal(found) else None
        for key in ("repository", "url", "upstream_name")
    )
    what = f"Syncs {name}" if name else "Syncs a repository"
    return f"{what} from {upstream} at {url}" if url and upstream else what
