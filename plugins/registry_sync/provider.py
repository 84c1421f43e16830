"""The provider information for Airflow: connection type, settings, commands. Imports nothing."""

from __future__ import annotations

from typing import Any

HOOK = "registry_sync.hooks.registry.RegistryHook"
WEBHOOK_HOOK = "registry_sync.hooks.webhooks.RegistryWebhookHook"


def get_provider_info() -> dict[str, Any]:
    """The provider information, for the ``apache_airflow_provider`` entry point."""
    integration = "Container registries"
    return {
        "package-name": "registry-sync",
        "name": "registry-sync",
        "description": "Container repositories, mirrored by Airflow as versioned content.",
        "integrations": [
            {
                "integration-name": integration,
                "external-doc-url": "https://github.com/opencontainers/distribution-spec",
                "tags": ["software"],
            }
        ],
        "hooks": [
            {
                "integration-name": integration,
                "python-modules": ["registry_sync.hooks.registry", "registry_sync.hooks.webhooks"],
            }
        ],
        "operators": [{"integration-name": integration, "python-modules": list(OPERATOR_MODULES)}],
        "triggers": [{"integration-name": integration, "python-modules": ["registry_sync.triggers.watched_tags"]}],
        "notifications": ["registry_sync.operators.mirror_notifier.MirrorNotifier"],
        "connection-types": [
            {
                "hook-class-name": HOOK,
                "hook-name": "Container registry",
                "connection-type": "registry",
                "ui-field-behaviour": FIELD_BEHAVIOUR,
                "conn-fields": CONNECTION_FIELDS,
            },
            {
                "hook-class-name": WEBHOOK_HOOK,
                "hook-name": "Registry webhook",
                "connection-type": "registry_webhook",
                "ui-field-behaviour": WEBHOOK_FIELD_BEHAVIOUR,
                "conn-fields": WEBHOOK_FIELDS,
            },
        ],
        "cli": ["registry_sync.cli.get_cli_commands"],
        "config": {"registry_sync": {"description": "Settings of registry-sync.", "options": SETTINGS}},
    }


OPERATOR_MODULES = (
    "registry_sync.operators.list_tags",
    "registry_sync.operators.fetch_manifests",
    "registry_sync.operators.plan_blobs",
    "registry_sync.operators.fetch_blobs",
    "registry_sync.operators.commit_version",
    "registry_sync.operators.fetch_and_commit",
    "registry_sync.operators.sync_mirrors",
    "registry_sync.operators.compare_versions",
    "registry_sync.operators.promote_tags",
    "registry_sync.operators.roll_back_version",
    "registry_sync.operators.publish_version",
    "registry_sync.operators.collect_orphans",
    "registry_sync.operators.verify_blobs",
    "registry_sync.operators.reclaim_blobs",
    "registry_sync.operators.sync_mirrors",
    "registry_sync.operators.list_mirror_tags",
    "registry_sync.operators.sync_mirror_group",
    "registry_sync.operators.check_fleet",
)

FIELD_BEHAVIOUR: dict[str, Any] = {
    "hidden-fields": [],
    "relabeling": {"schema": "Scheme", "login": "User name", "password": "Password or access token"},
    "placeholders": {
        "host": "registry-1.docker.io",
        "schema": "https",
        "port": "443",
        "login": "empty for anonymous reading",
    },
}


def _text(label: str, description: str, **schema: Any) -> dict[str, Any]:
    return {"label": label, "description": description, "schema": {"type": ["string", "null"], **schema}}


def _grouped(**groups: dict[str, dict[str, Any]]) -> dict[str, dict[str, Any]]:
    """The fields of all groups; the form has a section for each, under its name with blanks for underscores."""
    return {
        name: {**field, "schema": {**field["schema"], "section": group.replace("_", " ")}}
        for group, fields in groups.items()
        for name, field in fields.items()
    }


def _number(label: str, description: str, smallest: int, largest: int) -> dict[str, Any]:
    schema = {"type": ["integer", "null"], "minimum": smallest, "maximum": largest}
    return {"label": label, "description": description, "schema": schema}


def _fraction(label: str, description: str, smallest: float, largest: float) -> dict[str, Any]:
    schema = {"type": ["number", "null"], "minimum": smallest, "maximum": largest}
    return {"label": label, "description": description, "schema": schema}


def _flag(label: str, description: str, default: bool) -> dict[str, Any]:
    return {"label": label, "description": description, "schema": {"type": ["boolean", "null"], "default": default}}


#: Fields of the form beside host, scheme, port, user name and password; they are kept in Extra under these names.
CONNECTION_FIELDS: dict[str, Any] = _grouped(
    TLS={
        "verify": _flag("Verify TLS certificate", "Switch off only for registries in a trusted network.", True),
        "ca_certificate": _text(
            "CA certificate",
            "PEM text, or the path of a PEM file, of the CAs that may vouch for the registry. Empty for the public "
            "ones.",
            format="multiline",
        ),
        "client_certificate": _text(
            "Client certificate", "PEM text or path, sent to the registry and to no other host.", format="multiline"
        ),
        "client_private_key": _text(
            "Client key",
            "PEM text or path of the client certificate's key. Airflow shows it as *** once it is saved.",
            format="multiline",
        ),
    },
    Credentials_and_tokens={
        "credential_helper": _text(
            "Credential helper",
            "Creates short-lived passwords for the registry. amazon_ecr: user name and password are then an AWS access "
            "key and its secret, or empty for boto3's own credential lookup.",
            enum=[None, "amazon_ecr"],
            values_display={"None": "none", "amazon_ecr": "Amazon ECR"},
        ),
        "registry_token": _text("Registry token", "A bearer token to use as it is.", format="password"),
        "identity_token": _text("Identity token", "An OAuth2 refresh token, as of docker login.", format="password"),
        "trusted_realm_hosts": _text(
            "Trusted token services",
            "Hosts (host or host:port, separated by commas) that may receive the password besides the registry itself. "
            "Not needed for Docker Hub and gitlab.com.",
        ),
        "allow_any_host": _flag(
            "Serve any registry",
            "Only without a host: any registry that a remote names receives these credentials. Users who may create "
            "remotes can then send them anywhere.",
            False,
        ),
        "allow_insecure_credentials": _flag(
            "Allow password over plain http", "Only for registries without TLS in a trusted network.", False
        ),
    },
    Network={
        "proxy": _text("Proxy", "URL of an HTTP proxy, such as http://proxy.example:3128.", format="password"),
        "private_hosts": _text(
            "Private hosts",
            "Hosts at private addresses that the registry may redirect downloads to. Needed only when the registry "
            "itself is at a public address.",
        ),
        "ns": _text(
            "Namespace (ns)",
            "For a mirror or pull-through cache: the host that it mirrors, such as docker.io. Sent as ns with each "
            "request for content, to the registry itself only.",
        ),
        "timeout": _number("Timeout", "Seconds to wait for a connection, and for a response to go on.", 1, 3600),
    },
    Limits={
        "concurrency": _number(
            "Concurrency", "The most concurrent connections if the remote sets none. Default 64.", 1, 200
        ),
        "host_concurrency": _number(
            "Concurrency on the host",
            "The most concurrent requests of all tasks of a stage of a sync together. Empty for no limit.",
            1,
            10_000,
        ),
        "requests_per_second": _fraction(
            "Requests per second",
            "The most requests per second to the registry of all tasks of a stage of a sync together. Empty for no "
            "limit.",
            0.01,
            10_000,
        ),
        "rate_limit_floor": _number(
            "Pulls to leave over", "Stop when the registry allows fewer pulls than this (Docker Hub).", 0, 1_000_000_000
        ),
        "contact": _text(
            "Contact",
            "A contact for the operator of the registry: a mail address or URL, sent in User-Agent. Empty for the "
            "setting's.",
            maxLength=200,
        ),
    },
)

WEBHOOK_FIELD_BEHAVIOUR: dict[str, Any] = {
    "hidden-fields": ["schema", "login"],
    "relabeling": {"password": "Secret", "host": "Registry"},
    "placeholders": {
        "host": "empty: as the notification says",
        "password": "at least 20 characters; openssl rand -hex 24",
    },
}
#: Fields of a webhook's form; they are kept in Extra under these names.
WEBHOOK_FIELDS: dict[str, Any] = {
    "kind": _text(
        "Kind",
        "Whose notifications are taken.",
        enum=["distribution", "docker_hub", "quay", "harbor", "github", "google"],
        values_display={
            "distribution": "distribution (also Azure)",
            "docker_hub": "Docker Hub",
            "quay": "Quay",
            "harbor": "Harbor",
            "github": "GitHub",
            "google": "Google Pub/Sub",
        },
    ),
    "repositories": _text(
        "Repositories",
        "Globs of repositories on the registry, separated by commas, such as team/*. Empty for all.",
    ),
    "audience": _text(
        "Audience", "Google only: of the token that the push subscription sends. Empty: the secret counts."
    ),
    "service_account": _text(
        "Service account", "Google only: whose tokens are taken. Empty for any with the audience."
    ),
}

SETTINGS: dict[str, Any] = {
    "sql_alchemy_conn": {
        "description": "URL of the metadata database. Empty for SQLite below AIRFLOW_HOME.",
        "version_added": "0.1.0",
        "type": "string",
        "sensitive": True,
        "example": "postgresql+psycopg://user:password@host/registry_sync",
        "default": "",
    },
    "blob_delivery": {
        "description": "Who sends the bytes of blobs to container clients: direct, redirect (the object store, by "
        "signed URLs) or nginx (X-Accel-Redirect).",
        "version_added": "0.2.0",
        "type": "string",
        "example": "redirect",
        "default": "direct",
    },
    "blob_store": {
        "description": "Where blobs are kept: an fsspec URL. Empty for files below AIRFLOW_HOME.",
        "version_added": "0.1.0",
        "type": "string",
        "example": "s3://bucket/registry-sync",
        "default": "",
    },
    "max_shards": {
        "description": "The most mapped tasks of one stage of a sync.",
        "version_added": "0.1.0",
        "type": "integer",
        "example": None,
        "default": "4",
    },
    "min_shard_mib": {
        "description": "The minimum work of a task, in MiB; manifests count one each, blobs one more than their bytes.",
        "version_added": "0.1.0",
        "type": "integer",
        "example": None,
        "default": "1024",
    },
    "contact": {
        "description": "A contact for operators of registries: a mail address or URL, sent in User-Agent.",
        "version_added": "0.1.0",
        "type": "string",
        "example": "mirrors@example.org",
        "default": "",
    },
    "share_with_group": {
        "description": "Whether files of the embedded stores are accessible to their group as well as to their owner.",
        "version_added": "0.1.0",
        "type": "boolean",
        "example": None,
        "default": "False",
    },
    "signed_url_seconds": {
        "description": "How long a signed URL of the object store can be used, with blob_delivery = redirect.",
        "version_added": "0.2.0",
        "type": "integer",
        "example": "60",
        "default": "300",
    },
    "fleet_path": {
        "description": "The file that declares mirrors, or a folder of such files. Empty: none.",
        "version_added": "0.2.0",
        "type": "string",
        "example": "/opt/airflow/dags/mirrors.yaml",
        "default": "",
    },
    "sync_dag_id": {
        "description": "The DAG that a sync over REST runs; its access rules hold for reading over REST.",
        "version_added": "0.1.0",
        "type": "string",
        "example": "mirror_everything",
        "default": "registry_sync",
    },
    "trust_triggers": {
        "description": "Whether users who may trigger a DAG may change stored remotes and approve removals with it.",
        "version_added": "0.1.0",
        "type": "boolean",
        "example": None,
        "default": "False",
    },
    "pull_login_url": {
        "description": "The Airflow API server whose users may log in at the pull server. Empty: only robots may.",
        "version_added": "0.2.0",
        "type": "string",
        "example": "http://127.0.0.1:8080",
        "default": "",
    },
    "pull_trusted_proxies": {
        "description": "Addresses and networks of proxies in front of the pull server, whose X-Forwarded-For counts.",
        "version_added": "0.2.0",
        "type": "string",
        "example": "127.0.0.1, 10.0.0.0/8",
        "default": "",
    },
    "pull_metrics": {
        "description": "The host:port at which the pull server serves /metrics to Prometheus. Empty: nowhere.",
        "version_added": "0.2.0",
        "type": "string",
        "example": "127.0.0.1:9105",
        "default": "",
    },
    "pull_access_log": {
        "description": "The file that the pull server writes a line to for each request, - for standard output.",
        "version_added": "0.2.0",
        "type": "string",
        "example": "/var/log/registry-sync/pulls.jsonl",
        "default": "",
    },
    "pull_in_api_server": {
        "description": "Whether Airflow's API server serves what was synced to container clients below /v2, too.",
        "version_added": "0.2.0",
        "type": "boolean",
        "example": None,
        "default": "False",
    },
    "rest_basic_over_http": {
        "description": "Whether users' passwords are accepted by HTTP Basic at the REST API without TLS, too.",
        "version_added": "0.2.0",
        "type": "boolean",
        "example": None,
        "default": "False",
    },
    "approval_hours": {
        "description": "How long a sync that would remove too many tags waits for an approval among Airflow's required "
        "actions before it fails. 0: it fails at once.",
        "version_added": "0.2.0",
        "type": "integer",
        "example": "72",
        "default": "24",
    },
    "orphan_grace_hours": {
        "description": "How long unreferenced content is kept before garbage collection removes it.",
        "version_added": "0.1.0",
        "type": "integer",
        "example": None,
        "default": "24",
    },
    "metrics_mirrors": {
        "description": "How many repositories have their own name in metrics, the first ones that were created; the "
        "others are counted together as other.",
        "version_added": "0.2.0",
        "type": "integer",
        "example": "1000",
        "default": "200",
    },
    "confirm_tags_hours": {
        "description": "How long a registry's list of digests may stand in for requesting each tag.",
        "version_added": "0.2.0",
        "type": "integer",
        "example": None,
        "default": "24",
    },
}
