"""The definition of ``mirrors.yaml``: its keys, what each means, and how it is read.

The JSON Schema and the reference page are generated from it (:func:`json_schema`). Options of a remote have the names
and meanings that they have over REST; a test compares them.
"""

from __future__ import annotations

import re
from zoneinfo import ZoneInfo

from registry_sync.domain.digests import Digest
from registry_sync.domain.known_registries import DigestList
from registry_sync.domain.mirror_states import NotifiedOf
from registry_sync.domain.platforms import Platform
from registry_sync.domain.records import SyncMode
from registry_sync.domain.references import RegistryUrl, RepositoryName, TagName, TagPattern
from registry_sync.domain.remote import Policy, is_own_connection
from registry_sync.domain.serving import base_path_of
from registry_sync.domain.tag_rules import RegexSet, TagOrder
from registry_sync.domain.tag_versions import SuffixRule, VersionRange
from registry_sync.errors import ConfigurationError
from registry_sync.fleet.kinds import (
    ByShape,
    Choice,
    Duration,
    Flag,
    Key,
    ListOf,
    MapOf,
    Number,
    Record,
    Schema,
    Size,
    Text,
)
from registry_sync.fleet.schedules import EXPECTED_SCHEDULE, check_schedule

#: Where the schema is published in the repository, and its address in the first line of a file.
SCHEMA_FILE = "mirrors.schema.json"
VERSION = "1"
_GROUP = re.compile(r"[A-Za-z0-9](?:[A-Za-z0-9_-]{0,98}[A-Za-z0-9])?")


# -- texts and what they are checked by -------------------------------------------------------------------------------


def _timezone(text: str) -> None:
    try:
        ZoneInfo(text)
    except (ValueError, OSError, KeyError):
        raise ConfigurationError(f"this is {text[:60]!r}, which is no time zone that is known here") from None


def _connection(text: str) -> None:
    if is_own_connection(text):
        raise ConfigurationError(f"this is {text[:60]!r}, which serves the remote that it was made for alone")


def _group_name(text: str) -> None:
    if not _GROUP.fullmatch(text):
        raise ConfigurationError(f"this is {text[:60]!r}; a name has letters, digits, - and _, at most 100")


def _relative(text: str) -> None:
    if text.startswith(("/", "~")) or "://" in text or ".." in text.split("/") or "\\" in text:
        raise ConfigurationError(f"this is {text[:60]!r}; a path is relative and stays below the folder of its file")


def _regex(text: str) -> None:
    RegexSet((text,))


def _version_range(text: str) -> None:
    VersionRange.parse(text, SuffixRule.PRECEDENCE)


def _components(text: str) -> None:
    if text != "any" and not re.fullmatch(r"[1-9](-[1-9])?", text):
        raise ConfigurationError(f"this is {text[:20]!r}")


_NAME = Text("the name of a repository, such as library/alpine", RepositoryName, ("library/alpine",), 255)
_CONN_ID = Text("the id of an Airflow connection", _connection, ("dockerhub",), 250)
_GLOB = Text("a tag, or a glob such as 3.* or {a,b}-*", TagPattern, ("3.*", "latest"))
_REGEX = Text("a regular expression of RE2 for the whole tag", _regex, (r"release-\d+",), has_variables=False)
_PEM = ByShape(
    "PEM text, or {file: PATH}",
    scalar=Text("PEM text", max_length=1_000_000),
    fields=Record(
        "{file: PATH}",
        (Key("file", Text("a path below this file's folder", _relative), "A PEM file below the folder of this file."),),
        ("file",),
    ),
)

# -- tags -------------------------------------------------------------------------------------------------------------

SEMVER = Record(
    "a map of range, suffixes, prereleases, components and version_from",
    (
        Key(
            "range",
            Text('a range such as ">=3.12 <4"', _version_range, (">=3.12 <4",)),
            "Versions, as npm writes ranges.",
        ),
        Key(
            "suffixes",
            Choice("ignore, exclude or precedence", tuple(rule.value for rule in SuffixRule)),
            "Whether a range ignores what stands behind the numbers, excludes versions with it, or orders it as "
            "Semantic Versioning does.",
            "ignore",
        ),
        Key(
            "prereleases",
            ByShape(
                "true, false or a list of words",
                scalar=Flag(),
                entries=ListOf("a list of words", Text("a word such as rc", max_length=40), 40),
            ),
            "Whether pre-releases are selected; a list has the words that mark them.",
            "false",
        ),
        Key(
            "components",
            Text("any, a number such as 3, or a range such as 1-3", _components, max_length=5),
            "How many numbers a version has.",
            "any",
        ),
        Key("version_from", _REGEX, "Takes the version out of a tag: its group v is the version."),
    ),
    ("range",),
)
TAG_SET = Record(
    "a map of rules for tags",
    (
        Key(
            "include",
            ListOf("a list of tags and globs", _GLOB),
            "Tags and globs. Exact names pass every rule but exclude.",
            example=["3.*", "latest"],
        ),
        Key(
            "exclude",
            ListOf("a list of tags and globs", _GLOB),
            "Tags and globs that are not selected.",
            example=["*-debug"],
        ),
        Key("regex", ListOf("a list of regular expressions", _REGEX, 64), "Tags of which one matches the whole name."),
        Key("regex_all", ListOf("a list of regular expressions", _REGEX, 64), "All of these match the whole name."),
        Key(
            "exclude_regex",
            ListOf("a list of regular expressions", _REGEX, 64),
            "None of these matches the whole name.",
        ),
        Key(
            "semver",
            ByShape(
                'a range such as ">=15 <18", or a map with range',
                scalar=Text('a range such as ">=15 <18"', _version_range, (">=15 <18",)),
                fields=SEMVER,
            ),
            "Only versions within a range; what is no version is left out and counted.",
            example=">=15 <18",
        ),
        Key(
            "newest",
            ByShape(
                "a number, or {count: 5, of: tags}",
                scalar=Number("a number from 1 on", 1, 100_000),
                fields=Record(
                    "a map of count and of",
                    (
                        Key("count", Number("a number from 1 on", 1, 100_000), "How many."),
                        Key(
                            "of",
                            Choice("versions or tags", ("versions", "tags")),
                            "Whether variants of one version count once.",
                            "versions",
                        ),
                    ),
                    ("count",),
                ),
            ),
            "Only the newest of what is selected.",
            example=3,
        ),
        Key(
            "order",
            Choice("version, first_seen, pushed or name", tuple(order.value for order in TagOrder)),
            "What newest means.",
            "version",
        ),
        Key(
            "newer_than",
            Text("a duration such as 90d, or a date such as 2026-01-31", max_length=40),
            "Only tags that came later, by the order first_seen or pushed.",
        ),
        Key(
            "digests",
            ListOf(
                "a list of digests",
                ByShape(
                    "a digest, or {digest: sha256:…, tag: NAME}",
                    scalar=Text("a digest such as sha256:…", Digest, max_length=200),
                    fields=Record(
                        "a map of digest and tag",
                        (
                            Key(
                                "digest",
                                Text("a digest such as sha256:…", Digest, max_length=200),
                                "The digest of a manifest.",
                            ),
                            Key("tag", Text("a tag", TagName, max_length=128), "The tag that it gets here."),
                        ),
                        ("digest",),
                    ),
                ),
            ),
            "Manifests by digest.",
        ),
    ),
)

# -- a mirror ---------------------------------------------------------------------------------------------------------

REMOTE = Record(
    "a map that describes a remote",
    (
        Key(
            "url",
            Text("the address of a registry, such as https://quay.io", RegistryUrl.parse, ("https://quay.io",)),
            "The registry.",
        ),
        Key("upstream_name", _NAME, "The name of the repository there."),
        Key("ssl_validation", Flag(), "Whether the registry's certificate is checked.", "true"),
        Key("ssl_ca_certificate", _PEM, "Certificates of the authorities to trust."),
        Key("proxy_url", Text("the URL of a proxy", max_length=2000), "The proxy to go through."),
        Key(
            "download_concurrency",
            Number("a number from 1 to 100", 1, 100),
            "The most requests at once in each task, which begins with 20.",
            "64",
        ),
        Key("allow_sparse", Flag(), "Whether an index is accepted of which the registry lacks entries.", "false"),
        Key("allow_schema1", Flag(), "Whether Docker's schema 1 manifests are accepted.", "false"),
        Key(
            "include_foreign_layers",
            Flag(),
            "Whether layers that are kept elsewhere are fetched, from their URLs.",
            "false",
        ),
        Key(
            "digest_list",
            Choice(
                "one of " + ", ".join(choice.value for choice in DigestList),
                tuple(choice.value for choice in DigestList),
            ),
            "From where the digests of all tags are taken at once.",
            "auto",
        ),
    ),
)
GUARD = Record(
    "a map of limits",
    (
        Key(
            "max_removed_share",
            Number("a share from 0 to 1", 0, 1, is_share=True),
            "The share of its tags that a sync may remove.",
            "0.5",
        ),
        Key("max_removed_tags", Number("a number of tags", 0, 1_000_000), "The number of tags that a sync may remove."),
        Key(
            "max_held_share", Number("a share from 0 to 1", 0, 1, is_share=True), "The share of tags that may be held."
        ),
        Key("min_tags", Number("a number of tags from 1 on", 1, 1_000_000), "The fewest tags that a version may have."),
        Key("max_total_bytes", Size(), "The most that one sync stores.", example="200GB"),
    ),
)
RETAIN = Record(
    "a map of versions and days",
    (
        Key("versions", Number("a number from 1 on", 1, 1_000_000), "How many of the newest versions are kept."),
        Key("days", Number("a number from 1 on", 1, 36_500), "For how many days versions are kept."),
    ),
)
PUBLISH = Record(
    "a map of base_path and private",
    (
        Key(
            "base_path",
            Text("a base path such as team/alpine", base_path_of, ("team/alpine",), 255),
            "What clients pull; the repository's name unless given.",
        ),
        Key("private", Flag(), "Whether a login is needed.", "true"),
    ),
)
NOTIFY = Record(
    "a map of on and to",
    (
        Key(
            "on",
            ByShape(
                "one of " + ", ".join(kind.value for kind in NotifiedOf) + ", or a list",
                scalar=Choice("what happened", tuple(kind.value for kind in NotifiedOf)),
                entries=ListOf(
                    "a list",
                    Choice(
                        "one of " + ", ".join(kind.value for kind in NotifiedOf),
                        tuple(kind.value for kind in NotifiedOf),
                    ),
                ),
            ),
            "What a notification is sent for.",
        ),
        Key("to", _CONN_ID, "The Airflow connection that it is sent to."),
    ),
    ("on", "to"),
)
#: What defaults, groups and mirrors may all say.
SHARED_KEYS = (
    Key(
        "remote",
        ByShape(
            "the name of a remote that exists, or a map that describes one",
            scalar=Text("the name of a remote", max_length=255),
            fields=REMOTE,
        ),
        "The source, in place of `source`: options of the registry, or the name of a remote that exists.",
    ),
    Key(
        "tags",
        ByShape(
            "a map of rules, or a list of such maps",
            entries=ListOf("a list of maps of rules", TAG_SET, 64),
            fields=TAG_SET,
        ),
        "Which tags are mirrored; of several sets of rules any may select a tag.",
        "all",
    ),
    Key(
        "platforms",
        ListOf(
            "a list of platforms",
            Text("a platform such as linux/amd64", Platform.parse, ("linux/amd64", "linux/arm64"), 255),
            100,
        ),
        "Which entries of indexes are mirrored.",
        "all",
    ),
    Key("include_referrers", Flag(), "Whether signatures and other referrers are mirrored.", "true"),
    Key(
        "policy",
        Choice("immediate, on_demand or streamed", tuple(policy.value for policy in Policy)),
        "When the bytes of blobs are downloaded.",
        "immediate",
    ),
    Key(
        "mode",
        Choice("mirror or additive", tuple(mode.value for mode in SyncMode)),
        "Whether tags that are gone upstream are removed (mirror) or kept (additive).",
        "mirror",
    ),
    Key(
        "schedule",
        ByShape(
            EXPECTED_SCHEDULE,
            scalar=Text(EXPECTED_SCHEDULE, check_schedule, ("@daily", "30 3 * * 1-5", "6h"), 100),
            fields=Record(
                "{asset: URI}",
                (Key("asset", Text("the URI of an asset", max_length=1500), "Syncs when this asset is updated."),),
                ("asset",),
            ),
        ),
        "When it is synced; null only by hand.",
        "null",
        example="@daily",
    ),
    Key(
        "timezone",
        Text("a time zone such as Europe/Berlin", _timezone, ("UTC", "Europe/Berlin"), 64),
        "The time zone of the schedule.",
        "UTC",
    ),
    Key(
        "spread",
        Duration(),
        "Mirrors start within this duration, each at a constant time of its own.",
        "0",
        example="2h",
    ),
    Key("enabled", Flag(), "Whether it is synced on schedule.", "true"),
    Key("retries", Number("a number from 0 to 100", 0, 100), "How often a failed task is tried again.", "4"),
    Key("guard", GUARD, "Limits beyond which a sync stops."),
    Key("retain", RETAIN, "Which versions are kept; what either limit keeps stays.", "all"),
    Key("conn_id", _CONN_ID, "The Airflow connection with the credentials.", "that of `connections` for the host"),
    Key(
        "pool",
        Text("the name of an Airflow pool", max_length=256),
        "The Airflow pool that its tasks take slots of.",
        "default_pool",
    ),
    Key("priority", Number("a number from -1000 to 1000", -1000, 1000), "Mirrors of a higher priority go first.", "0"),
    Key("owner", Text("the name of an owner", max_length=100), "The owner of the DAG."),
    Key("description", Text("text", max_length=5000), "A description, for people."),
    Key(
        "labels",
        MapOf("a map of texts", Text("text", max_length=1000)),
        "Labels of the repository and the remote; tags of the DAG.",
        example={"team": "base"},
    ),
    Key(
        "publish",
        ByShape(
            "a base path such as team/alpine, or a map of base_path and private",
            scalar=Text("a base path such as team/alpine", base_path_of, ("team/alpine",), 255),
            fields=PUBLISH,
        ),
        "The distribution that clients pull it from.",
        "none",
    ),
    Key("freshness", Duration(), "How old the last successful sync may be.", "any age", example="36h"),
    Key("notify", ListOf("a list of maps of on and to", NOTIFY, 20), "Who is notified, and of what."),
)
DEFAULTS = Record("a map with what all mirrors have", SHARED_KEYS)
GROUP = Record(
    "a map with what the mirrors of the group have",
    (Key("batch", Flag(), "Whether one DAG syncs the whole group, several mirrors in a task.", "false"), *SHARED_KEYS),
)
MIRROR = Record(
    "a map that describes a mirror",
    (
        Key("repository", _NAME, "The repository that is synced into, unique in the fleet.", "the source's path"),
        Key(
            "source",
            Text(
                "a repository with its registry, such as docker.io/library/alpine",
                max_length=300,
                examples=("docker.io/library/alpine", "quay.io/prometheus/node-exporter"),
            ),
            "The registry and the repository there.",
        ),
        Key("group", Text("the name of a group", _group_name, max_length=100), "The group whose fields it has."),
        Key(
            "replace_upstream",
            Flag(),
            "Whether another source may replace the one that its repository is filled from.",
            "false",
        ),
        *SHARED_KEYS,
    ),
)
FILE_KEYS = (
    Key("version", Choice("1", (VERSION,)), "The version of this format."),
    Key(
        "include",
        ListOf(
            "a list of globs",
            Text("a glob of files such as mirrors.d/*.yaml", _relative, ("mirrors.d/*.yaml",), 300),
            100,
        ),
        "Further files below this one's folder, which include none themselves.",
        example=["mirrors.d/*.yaml"],
    ),
    Key(
        "connections",
        MapOf("a map of hosts to connections", _CONN_ID, RegistryUrl.parse),
        "Airflow connections by the host of the registry, for mirrors that name none.",
        example={"registry.example.com": "our_registry"},
    ),
    Key("defaults", DEFAULTS, "What every mirror has unless its group or it says otherwise."),
    Key("groups", MapOf("a map of groups", GROUP, _group_name), "Groups by name."),
    Key("mirrors", ListOf("a list of mirrors", MIRROR, 100_000), "The mirrors."),
)


def json_schema() -> Schema:
    """The JSON Schema of a file. What defaults, groups and mirrors have in common stands once, below ``$defs``."""
    whole = Record("a map with version and mirrors", FILE_KEYS, ("version",)).schema()
    properties = whole["properties"]
    properties["version"] = {"enum": [1, VERSION], "description": FILE_KEYS[0].description}
    properties["defaults"] = {"anyOf": [{"$ref": "#/$defs/defaults"}, {"type": "null"}]}
    properties["groups"]["additionalProperties"] = {"$ref": "#/$defs/group"}
    properties["mirrors"]["items"] = {"$ref": "#/$defs/mirror"}
    records = {"defaults": DEFAULTS.schema(), "group": GROUP.schema(), "mirror": MIRROR.schema()}
    shared = {key.name: key.schema() for key in SHARED_KEYS}
    for record in records.values():
        record["properties"] |= {name: {"$ref": f"#/$defs/{name}"} for name in shared}
    return {
        "$schema": "https://json-schema.org/draft/2020-12/schema",
        "title": "Mirrors of registry-sync",
        **whole,
        "$defs": {**records, **shared},
    }
