"""Syncs a container repository into a numbered version of a repository.

- **Start one** with *Trigger*: open *Sync an existing remote*, or *Mirror something new* with a registry and the name
  of the repository there. Or over REST, with `airflow dags trigger`, or in a DAG of your own with a schedule.
- **What a run did** is its note, on the run's page: `alpine: version 3, +61 \N{MINUS SIGN}2 tags, 158 MiB`. The tasks
  `list_tags` and `commit_version` link to the version, its difference, the repository and the upstream.
- **A run that waits** would remove more tags than its remote allows: *Required Actions* lists them, and *Approve*
  continues it.
- What is stored: [repositories](pulp/api/v3/repositories/docker/docker/),
  [remotes](pulp/api/v3/remotes/docker/docker/), [syncs](pulp/api/v3/syncs/). Credentials: [connections](connections) of
  type *Container registry*.

| task | what it does |
|---|---|
| `list_tags` | lists the tags and compares them with the latest version; if nothing changed, the rest is skipped. \
Of a small repository it fetches the content as well, and the next three are skipped |
| `fetch_manifests` | fetches the manifests of new and moved tags |
| `plan_blobs`, `fetch_blobs` | find and download the blobs that are missing |
| `commit_version` | makes the version, completely or not at all |
"""

from __future__ import annotations

from datetime import timedelta

from airflow.sdk import DAG, Param

from registry_sync.operators.commit_version import CommitVersionOperator
from registry_sync.operators.fetch_blobs import FetchBlobsOperator
from registry_sync.operators.fetch_manifests import FetchManifestsOperator
from registry_sync.operators.list_tags import ListTagsOperator
from registry_sync.operators.mirror_notifier import MirrorNotifier
from registry_sync.operators.plan_blobs import PlanBlobsOperator
from registry_sync.operators.stage import RegistryRetryPolicy

EXISTING, NEW, FURTHER = "Sync an existing remote", "Mirror something new", "Further options"
RULES = "Tags by rule"

PARAMS = {
    "repository": Param(
        type="string",
        minLength=1,
        maxLength=255,
        title="Repository",
        description_md=(
            "The repository to sync into; it is created when it does not exist. Then open *Sync an existing remote* or "
            "*Mirror something new* below and say where it comes from. [Repositories that exist]"
            "(pulp/api/v3/repositories/docker/docker/?fields=name)"
        ),
    ),
    "tags": Param(
        None,
        type=["null", "array"],
        items={"type": "string"},
        title="Tags",
        description="Only these tags: names or globs such as 3.*, one a line. Empty for all.",
    ),
    "mode": Param(
        "mirror",
        type="string",
        enum=["mirror", "additive"],
        values_display={
            "mirror": "mirror: the new version equals the upstream",
            "additive": "additive: keep tags that are gone upstream",
        },
        title="Mode",
        description="Whether content that is gone upstream is kept.",
    ),
    "policy": Param(
        "default",
        type="string",
        enum=["default", "immediate", "on_demand", "streamed"],
        values_display={
            "default": "the remote's own (immediate for a new one)",
            "immediate": "immediate: download everything now",
            "on_demand": "on_demand: download blobs when first pulled",
            "streamed": "streamed: pass blobs through at each pull",
        },
        title="Policy",
        description="When the bytes of blobs are downloaded.",
    ),
    "publish_as": Param(
        None,
        type=["null", "string"],
        maxLength=255,
        title="Publish as",
        description=(
            "Base path under which clients pull the repository, such as team/alpine. Only logged-in ones may, until "
            "its distribution is made public. Empty to publish nothing new."
        ),
    ),
    "dry_run": Param(
        False,
        type="boolean",
        title="Dry run",
        description=(
            "Only find out what a sync would list, add, move, remove and download; nothing is written. The run's note "
            "and the log of list_tags say it."
        ),
    ),
    "remote": Param(
        None,
        type=["null", "string"],
        maxLength=255,
        title="Remote",
        description_md=(
            "Name of a remote that exists; leave *Mirror something new* empty then. [Remotes that exist]"
            "(pulp/api/v3/remotes/docker/docker/?fields=name,url,upstream_name)"
        ),
        section=EXISTING,
    ),
    "url": Param(
        None,
        type=["null", "string"],
        examples=[
            "https://registry-1.docker.io",
            "https://quay.io",
            "https://ghcr.io",
            "https://gcr.io",
            "https://public.ecr.aws",
            "https://registry.gitlab.com",
        ],
        title="Registry",
        description="Address of the registry, such as https://quay.io.",
        section=NEW,
    ),
    "upstream_name": Param(
        None,
        type=["null", "string"],
        maxLength=255,
        title="Upstream name",
        description="Name of the repository on that registry, such as library/hello-world.",
        section=NEW,
    ),
    "conn_id": Param(
        None,
        type=["null", "string"],
        maxLength=250,
        title="Connection",
        description_md=(
            "Airflow [connection](connections) of type *Container registry* with the credentials. Empty for anonymous."
        ),
        section=NEW,
    ),
    "exclude_tags": Param(
        None,
        type=["null", "array"],
        items={"type": "string"},
        title="Tags to exclude",
        description="Names or globs, one a line; excluded from the tags selected above.",
        section=FURTHER,
    ),
    "semver": Param(
        None,
        type=["null", "string", "object"],
        title="Versions",
        description=(
            "Only tags that are versions in this range, such as >=3.18 <4 or 3.x, whatever variant is behind them. Or "
            "JSON with range, suffixes, prereleases, components and version_from."
        ),
        section=RULES,
    ),
    "newest": Param(
        None,
        type=["null", "integer", "string", "object"],
        title="Newest",
        description="Only so many of the newest: versions with their variants, or tags in another order.",
        section=RULES,
    ),
    "order": Param(
        "default",
        type="string",
        enum=["default", "version", "first_seen", "pushed", "name"],
        values_display={
            "default": "the remote's own (version for a new one)",
            "version": "version: by version number",
            "first_seen": "first_seen: by when our syncs first saw the tag",
            "pushed": "pushed: by when it was pushed, where the registry lists it",
            "name": "name: by name",
        },
        title="Order",
        description="What the newest are, and what the age of a tag is.",
        section=RULES,
    ),
    "newer_than": Param(
        None,
        type=["null", "string"],
        title="Newer than",
        description=(
            "Only tags that came less than this long ago, such as 90d or 12h, or since a date such as 2026-01-31; with "
            "the order first_seen or pushed."
        ),
        section=RULES,
    ),
    "regex": Param(
        None,
        type=["null", "array"],
        items={"type": "string"},
        title="Regular expressions",
        description="Also the tags that one of these matches as a whole (RE2), one a line.",
        section=RULES,
    ),
    "regex_all": Param(
        None,
        type=["null", "array"],
        items={"type": "string"},
        title="Regular expressions that all match",
        description="Only tags that each of these matches as a whole, one a line.",
        section=RULES,
    ),
    "exclude_regex": Param(
        None,
        type=["null", "array"],
        items={"type": "string"},
        title="Regular expressions to exclude",
        description="Not the tags that one of these matches as a whole, one a line.",
        section=RULES,
    ),
    "digests": Param(
        None,
        type=["null", "array"],
        items={"type": "string"},
        title="Digests",
        description="Also these: tag@sha256:… is held under that tag, sha256:… under a name of its own. One a line.",
        section=RULES,
    ),
    "tag_sets": Param(
        None,
        type=["null", "array"],
        items={"type": "object"},
        title="Sets of rules",
        description=(
            'What any of these selects, as JSON: [{"semver": ">=15 <18", "include": ["*-alpine"], "newest": 3}, '
            '{"include": ["17"]}]. What one does not say is as in the fields here.'
        ),
        section=RULES,
    ),
    "platforms": Param(
        None,
        type=["null", "array"],
        items={"type": "string"},
        title="Platforms",
        description=(
            "Only these entries of indexes, one a line: linux/amd64, linux/arm64, linux/arm/v7, windows/amd64 or any "
            "other. Empty for the remote's own."
        ),
        section=FURTHER,
    ),
    "include_referrers": Param(
        "default",
        type="string",
        enum=["default", "true", "false"],
        values_display={
            "default": "the remote's own (included for a new one)",
            "true": "include them",
            "false": "exclude them",
        },
        title="Signatures and other referrers",
        description="Whether signatures, attestations and SBOMs are included with the images they refer to.",
        section=FURTHER,
    ),
    "download_concurrency": Param(
        None,
        type=["null", "integer"],
        minimum=1,
        maximum=100,
        title="Download concurrency",
        description="Concurrent requests of each task; 20 unless the remote sets another number.",
        section=FURTHER,
    ),
    "max_total_bytes": Param(
        None,
        type=["null", "integer"],
        minimum=1,
        maximum=9007199254740991,
        title="Most bytes to store",
        description=(
            "Stop before the download when the blobs that are not stored yet are larger together, in bytes. "
            "50000000000 is 50 GB. Empty for the remote's own, or no limit."
        ),
        section=FURTHER,
    ),
    "digest_list": Param(
        "default",
        type="string",
        enum=["default", "auto", "off", "quay", "gitlab", "azure", "harbor", "zot", "docker_hub"],
        values_display={
            "default": "the remote's own (auto for a new one)",
            "auto": "auto: what the registry lists without a further right",
            "off": "off: a request for each tag",
            "quay": "Quay's API",
            "gitlab": "GitLab's API",
            "azure": "Azure's API",
            "harbor": "Harbor's API",
            "zot": "zot's search",
            "docker_hub": "Docker Hub's API, on hub.docker.com",
        },
        title="List of digests",
        description="From where the digests of all tags are taken at once, in place of a request for each tag.",
        section=FURTHER,
    ),
    "ssl_validation": Param(
        "default",
        type="string",
        enum=["default", "true", "false"],
        values_display={
            "default": "the remote's own (checked for a new one)",
            "true": "check the registry's certificate",
            "false": "do not check it",
        },
        title="Certificates",
        description="Whether the registry's TLS certificate is checked.",
        section=FURTHER,
    ),
    "replace_upstream": Param(
        False,
        type="boolean",
        title="Replace the upstream",
        description=(
            "Let this registry and upstream name replace the remote's or the repository's own. Without it a run with "
            "another upstream stops. Counts only where triggers are trusted."
        ),
        section=FURTHER,
    ),
    "approve_removals": Param(
        False,
        type="boolean",
        title="Approve removals",
        description=(
            "Let a mirror remove more tags than its remote allows, half of them by default. Without it such a run "
            "stops and lists the removals. Counts only where triggers are trusted."
        ),
        section=FURTHER,
    ),
}
for param in PARAMS.values():
    # Airflow checks each schema whenever it reads a value; one of this draft in a third of the time.
    param.schema["$schema"] = "http://json-schema.org/draft-07/schema#"

# Mirrors of the setting fleet_path that are handed over to this DAG, or synced by hand, notify whom the file names.
notify, throttled = MirrorNotifier(), MirrorNotifier(on=["throttled"])

with DAG(
    dag_id="registry_sync",
    description="Sync a container repository into a repository version",
    schedule=None,
    catchup=False,
    is_paused_upon_creation=False,
    params=PARAMS,
    max_active_runs=16,
    tags=["registry-sync"],
    doc_md=__doc__,
    render_template_as_native_obj=False,
    default_args={
        "retries": 4,
        "retry_delay": timedelta(seconds=5),
        "retry_exponential_backoff": 2,
        "max_retry_delay": timedelta(minutes=5),
        "retry_policy": RegistryRetryPolicy(),
        "on_success_callback": notify,
        "on_failure_callback": notify,
        "on_retry_callback": throttled,
    },
):
    list_tags = ListTagsOperator(
        task_id="list_tags",
        repository="{{ params.repository }}",
        remote="{{ params.remote or '' }}",
        url="{{ params.url or '' }}",
        upstream_name="{{ params.upstream_name or '' }}",
        tags="{{ (params.tags or []) | join(',') }}",
        exclude_tags="{{ (params.exclude_tags or []) | join(',') }}",
        policy="{{ '' if params.policy == 'default' else params.policy }}",
        mode="{{ params.mode }}",
        conn_id="{{ params.conn_id or '' }}",
        download_concurrency="{{ params.download_concurrency or '' }}",
        max_total_bytes="{{ params.max_total_bytes or '' }}",
        digest_list="{{ '' if params.digest_list == 'default' else params.digest_list }}",
        ssl_validation="{{ '' if params.ssl_validation == 'default' else params.ssl_validation }}",
        regex="{{ (params.regex or []) | join('\\n') }}",
        regex_all="{{ (params.regex_all or []) | join('\\n') }}",
        exclude_regex="{{ (params.exclude_regex or []) | join('\\n') }}",
        semver="{{ params.semver | tojson if params.semver is mapping else params.semver or '' }}",
        newest="{{ params.newest | tojson if params.newest is mapping else params.newest or '' }}",
        order="{{ '' if params.order == 'default' else params.order }}",
        newer_than="{{ params.newer_than or '' }}",
        digests="{{ (params.digests or []) | join(',') }}",
        tag_sets="{{ params.tag_sets | tojson if params.tag_sets else '' }}",
        platforms="{{ (params.platforms or []) | join(',') }}",
        include_referrers="{{ '' if params.include_referrers == 'default' else params.include_referrers }}",
        replace_upstream="{{ params.replace_upstream }}",
        publish_as="{{ params.publish_as or '' }}",
        preview="{{ params.dry_run }}",
        fetch_tasks=["fetch_manifests", "plan_blobs", "fetch_blobs"],
    )
    fetch_manifests = FetchManifestsOperator.partial(
        task_id="fetch_manifests",
        blob_tasks=["plan_blobs", "fetch_blobs"],
        map_index_template="{{ task.shard['label'] }}",
    ).expand(shard=list_tags.output)
    plan_blobs = PlanBlobsOperator(task_id="plan_blobs")
    fetch_blobs = FetchBlobsOperator.partial(
        task_id="fetch_blobs",
        map_index_template="{{ task.shard['label'] }}",
    ).expand(shard=plan_blobs.output)
    commit_version = CommitVersionOperator(task_id="commit_version", approve_removals="{{ params.approve_removals }}")

    list_tags >> fetch_manifests >> plan_blobs >> fetch_blobs >> commit_version
    fetch_manifests >> commit_version
