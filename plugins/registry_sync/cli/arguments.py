"""The arguments of the commands, and what may be typed for them.

Every ``airflow`` command loads this module, so it imports nothing slow.
"""

from __future__ import annotations

from argparse import ArgumentParser, ArgumentTypeError
from collections.abc import Callable
from functools import partial
from typing import TYPE_CHECKING, Any

from airflow.cli.cli_config import ARG_OUTPUT, ARG_YES, Arg

from registry_sync.pulp.hrefs import MAX_NUMBER

if TYPE_CHECKING:
    from registry_sync.domain.runs import RunState


# Airflow's class has no annotations.
_new: Callable[..., Arg] = Arg
_MOST_COMPLETED = 100


class _NameArg(Arg):
    """An argument that is the name of a stored object; ``kind`` is its store, such as ``repositories``."""

    def __init__(self, kind: str, *flags: str, **given: Any) -> None:
        super().__init__(flags, **given)  # type: ignore[no-untyped-call]
        self._kind = kind

    def add_to_parser(self, parser: ArgumentParser) -> None:
        """Adds it, with what argcomplete calls for a word that a shell is to complete."""
        argument = parser.add_argument(*self.flags, **self.kwargs)
        argument.completer = partial(stored_names, self._kind)  # type: ignore[attr-defined]  # read by argcomplete


def stored_names(kind: str, prefix: str, **_: object) -> list[str]:
    """The first names of a kind that start with ``prefix``, for shells; none where the database cannot be used."""
    from registry_sync.cli.command_context import configured_database
    from registry_sync.domain.filters import Match, Operator
    from registry_sync.domain.records import PageRequest
    from registry_sync.errors import RegistrySyncError

    try:
        with configured_database() as database:
            database.check()
            request, wanted = PageRequest(0, _MOST_COMPLETED, "name"), Match("name", (prefix,), Operator.STARTS)
            found = getattr(database, kind).page(request, where=wanted).items
    except (RegistrySyncError, SystemExit):
        return []
    return [record.spec.name for record in found]


_LARGEST = 1_000_000
_MOST_JOBS = 64
_MOST_WORKERS = 256
_LABEL_NAME, _LABEL_VALUE = 255, 1000


def version_number(text: str) -> int:
    """The number of a version, from 1."""
    if not text.isascii() or not text.isdigit() or not 1 <= int(text[:20]) <= MAX_NUMBER:
        raise ArgumentTypeError(f"{text[:40]!r} is not the number of a version: use a whole number from 1")
    return int(text)


def base_number(text: str) -> int:
    """The number of a version to compare with; 0 is the empty version before the first."""
    return 0 if text == "0" else version_number(text)


def amount(text: str) -> float:
    """A number from 0 to a million."""
    try:
        number = float(text)
    except ValueError:
        number = -1.0
    if not 0 <= number <= _LARGEST:
        raise ArgumentTypeError(f"{text[:40]!r} is not a number from 0 to {_LARGEST:,}")
    return number


def positive(text: str) -> float:
    """A number above 0, up to a million."""
    number = amount(text)
    if not number:
        raise ArgumentTypeError(f"{text[:40]!r} is not more than 0")
    return number


def whole(lowest: int, highest: int) -> Callable[[str], int]:
    """Reads a whole number between bounds."""

    def read(text: str) -> int:
        if not (text.isascii() and text.isdigit() and lowest <= int(text[:20]) <= highest):
            raise ArgumentTypeError(f"{text[:40]!r} is not a whole number from {lowest} to {highest:,}")
        return int(text)

    return read


def label(text: str) -> tuple[str, str]:
    """Name and value of a label; an empty value removes it."""
    name, equals, value = text.partition("=")
    if not name or not equals or len(name) > _LABEL_NAME or len(value) > _LABEL_VALUE or not text.isprintable():
        raise ArgumentTypeError(f"{text[:40]!r} is not a label: use NAME=VALUE, or NAME= to remove it")
    return name, value


def run_state(text: str) -> RunState:
    """A state of sync runs."""
    from registry_sync.domain.runs import RunState

    try:
        return RunState(text)
    except ValueError:
        known = ", ".join(state.value for state in RunState)
        raise ArgumentTypeError(f"{text[:40]!r} is not a state of runs; they are {known}") from None


OUTPUT, YES = ARG_OUTPUT, ARG_YES
REPOSITORY = _NameArg("repositories", "name", help="Name of the repository")
REMOTE = _NameArg("remotes", "name", help="Name of the remote")
NAME_PART = _new(("--name",), help="Only names that contain this text, ignoring case", default=None)
NUMBER = _new(("number",), help="Number of the version", type=version_number)
OPTIONAL_NUMBER = _new(
    ("number",), help="Number of the version (default: the latest)", nargs="?", type=version_number, default=None
)
REVISION = _new(
    ("-r", "--to-revision"), help="Schema revision to migrate back to; 'base' drops all tables", required=True
)
RUN_STATE = _new(("--state",), help="Only runs in this state, such as failed", type=run_state, default=None)
OPTIONAL_REPOSITORY = _NameArg("repositories", "name", help="Only of this repository", nargs="?", default=None)
RUN_ID = _new(("run_id",), help="Run id of the DAG run, such as manual__2026-11-25T03:00:00+00:00")
TASK = _new(
    ("--task",),
    help="The listing task, for a run with several syncs: its task_id, such as alpine.list_tags or list_tags[1]",
    default=None,
)
DAG_ID = _new(("--dag-id",), help="The DAG of the run (default: the one that sync_dag_id names)", default=None)
BASE = _new(
    ("--base",),
    help="Version to compare with, 0 for nothing (default: the previous one)",
    type=base_number,
    default=None,
)
BASE_REPOSITORY = _NameArg(
    "repositories",
    "--base-repository",
    help="Compare with a version of this repository (default: its latest, or --base)",
    default=None,
)
SOURCE = _NameArg("repositories", "source", help="Name of the repository to copy tags from")
TARGET = _NameArg("repositories", "target", help="Name of the repository to copy tags into")
NUMBER_OPTION = _new(
    ("--number",), help="Version of the source (default: the latest)", type=version_number, default=None
)
TAG = _new(("--tag",), help="Only this tag, a name or a glob; may be repeated", action="append", default=None)
EXCLUDE_TAG = _new(
    ("--exclude-tag",), help="Exclude this tag, a name or a glob; may be repeated", action="append", default=None
)
MIRROR = _new(("--mirror",), help="Remove other tags from the target", action="store_true", default=False)
DESCRIPTION = _new(("--description",), help="Description of the new version", default=None)
DRY_RUN = _new(
    ("--dry-run",), help="Show what would be removed, and change nothing", action="store_true", default=False
)
GRACE_HOURS = _new(
    ("--grace-hours",),
    help="How long content must have been unreferenced (default: the setting orphan_grace_hours)",
    type=amount,
    default=None,
)
NAMES = _NameArg("repositories", "names", help="Names of repositories", nargs="+", metavar="NAME")
KEEP = _NameArg(
    "repositories",
    "--keep",
    help="Keep the bytes of this version, NAME:NUMBER, or NAME for its latest; may be repeated",
    action="append",
    default=None,
)
SHARE = _new(
    ("--share",),
    help="Read this share of the stored blobs, from 0 to 1, starting with those not read for longest",
    type=amount,
    default=1.0,
)
MIB_PER_SECOND = _new(("--mib-per-second",), help="Maximum read rate", type=amount, default=None)
REPAIR = _new(
    ("--repair",), help="Fetch lost blobs again from the remotes they came from", action="store_true", default=False
)
DIGEST = _new(("digest",), help="Digest of a blob or manifest, such as sha256:…")
LABEL = _new(
    ("--label",),
    help="NAME=VALUE to set a label, NAME= to remove it; may be repeated",
    action="append",
    type=label,
    default=None,
)
NEW_DESCRIPTION = _new(("--description",), help="Description of the version; '' removes it", default=None)
BASE_PATH = _new(("--base-path",), help="Name that clients pull, such as team/alpine (default: the name)", default=None)
PUBLIC = _new(("--public",), help="Let everybody pull it", action="store_true", default=False)
PRIVATE = _new(("--private",), help="Let only robots pull it whose scopes fit", action="store_true", default=False)
UNUSED_DAYS = _new(
    ("--unused-days",), help="Only what nobody pulled for that many days", type=whole(0, _LARGEST), default=None
)
OF_REPOSITORY = _NameArg(
    "repositories", "--repository", help="Repository that is served (default: the one of that name)", default=None
)
NEW_REPOSITORY = _NameArg(
    "repositories", "--repository", help="Serve this repository from now on, its latest version", default=None
)
NEW_BASE_PATH = _new(("--base-path",), help="Name that clients pull from now on", default=None)
SERVED_NUMBER = _new(
    ("--number",), help="Always serve this version (default: the latest)", type=version_number, default=None
)
SERVE_LATEST = _new(("--latest",), help="Serve the latest version again", action="store_true", default=False)
DISTRIBUTION = _NameArg("distributions", "name", help="Name of the distribution")
ROBOT = _new(("name",), help="Name of the robot, with which it logs in")
SCOPE = _new(
    ("--scope",),
    help="Base paths that it may pull, as a glob such as team-a/* ; may be repeated",
    action="append",
    default=None,
    required=True,
)
DAYS = _new(("--days",), help="In how many days it expires (default: never)", type=positive, default=None)
HOST = _new(("--host",), help="Address to serve at; 0.0.0.0 for all (default: 127.0.0.1)", default="127.0.0.1")
PORT = _new(("--port",), help="Port to serve at, 0 for a free one (default: 5050)", type=whole(0, 65_535), default=5050)
WORKERS = _new(("--workers",), help="Processes that serve (default: 2)", type=whole(1, _MOST_WORKERS), default=2)
CERTIFICATE = _new(("--certificate",), help="PEM file of the certificate, to serve HTTPS", default=None)
KEY = _new(("--key",), help="PEM file of its private key", default=None)

FLEET_FILE = _new(
    ("path",), help="File or folder that declares mirrors (default: the setting fleet_path)", nargs="?", default=None
)
FLEET_PATH = _new(
    ("--path",), help="File or folder that declares mirrors (default: the setting fleet_path)", default=None
)
OPTIONAL_MIRROR = _new(("name",), help="Repository of the mirror (default: all mirrors)", nargs="?", default=None)
MIRRORS = _new(("names",), help="Repositories of the mirrors (default: all)", nargs="*", metavar="NAME")
OF_GROUP = _new(("--group",), help="Only mirrors of this group", default=None)
JOBS = _new(("--jobs",), help="How many mirrors are planned at once (default: 4)", type=whole(1, _MOST_JOBS), default=4)
IMPORTED_FORMAT = _new(
    ("format",),
    help="Tool that the file is of (default: recognised by its keys)",
    nargs="?",
    choices=("skopeo", "regsync", "zot", "oc-mirror", "harbor", "quay", "dregsy", "image-syncer"),
    default=None,
)
IMPORTED_FILE = _new(("path",), help="File to import", metavar="FILE")
WRITTEN_FILE = _new(("-o", "--output"), help="Where to write mirrors.yaml (default: standard output)", metavar="FILE")
OVERWRITE = _new(("--force",), help="Replace the file of --output", action="store_true", default=False)
NAMED_AFTER = _new(
    ("--names",),
    help="Of skopeo's files: name repositories by the path, with its host, or by the last part (default: path)",
    choices=("path", "scoped", "last"),
    default="path",
)
DISCOVERED_URL = _new(("url",), help="Address of the registry, such as https://registry.example.com")
DISCOVERED_INCLUDE = _new(
    ("--include",),
    help="Glob of repositories, * within a part and ** across; may be repeated (default: all)",
    action="append",
    default=None,
)
DISCOVERED_EXCLUDE = _new(
    ("--exclude",), help="Glob of repositories to leave out; may be repeated", action="append", default=None
)
DISCOVERED_MOST = _new(
    ("--max",), help="Write nothing when more repositories match (default: 500)", type=whole(1, 100_000), default=500
)
DISCOVERED_NAME = _new(
    ("--repository",),
    help="What repositories are named here, with {name} or {last} (default: {name})",
    default="{name}",
)
DISCOVERED_GROUP = _new(("--group",), help="Group of the mirrors", default=None)
DISCOVERED_FILE = _new(
    ("-o", "--output"),
    help="File that is written, or added to, such as mirrors.d/discovered.yaml",
    required=True,
    metavar="FILE",
)
FAILED_ONLY = _new(("--failed",), help="Only mirrors that did not succeed", action="store_true", default=False)
OF_RUN = _new(("--run-id",), help="All results of this DAG run (default: the last result of each mirror)", default=None)
OF_DAG = _new(("--dag-id",), help="Only results of this DAG", default=None)


# -- syncs and remotes: what a remote has as an option, by the name of the sync's parameter ---------------------------


def flag(text: str) -> bool:
    """``true`` or ``false``."""
    value = {"true": True, "false": False}.get(text.lower())
    if value is None:
        raise ArgumentTypeError(f"{text[:40]!r} is neither true nor false")
    return value


def assignment(text: str) -> tuple[str, str]:
    """``OPTION=VALUE``."""
    name, equals, value = text.partition("=")
    if not name or not equals:
        raise ArgumentTypeError(f"{text[:40]!r} sets nothing: use OPTION=VALUE, or OPTION= for the default")
    return name.replace("-", "_"), value


SYNCED = _NameArg("repositories", "name", help="Name of the repository to sync into; created when it does not exist")
FROM_REMOTE = _NameArg(
    "remotes",
    "--remote",
    help="Remote to sync from (default: that of the last sync, or of that name)",
    default=None,
)
URL = _new(("--url",), help="Address of the registry, such as https://quay.io", default=None)
UPSTREAM_NAME = _new(("--upstream-name",), help="Name of the repository there, such as library/alpine", default=None)
IMPORTED_FOLDER = _new(
    ("path",), help="An OCI image layout, or a folder that `skopeo sync --dest dir` or `skopeo copy` to dir: wrote"
)
FROM_NAME = _new(
    ("--from-name",), help="The repository of the folder that is imported, where it has several", default=None
)
IMPORTED_TAG = _new(("--tag",), help="The tag of a single image that has none in the folder", default=None)
MODE = _new(
    ("--mode",),
    help="mirror: equal the upstream; additive: keep what is gone there",
    choices=("mirror", "additive"),
    default="mirror",
)
PLATFORM = _new(
    ("--platform",), help="Only this platform, such as linux/amd64; may be repeated", action="append", default=None
)
POLICY = _new(
    ("--policy",), help="When blobs are downloaded", choices=("immediate", "on_demand", "streamed"), default=None
)
CONN_ID = _new(("--conn-id",), help="Airflow connection with the credentials", default=None)
DOWNLOAD_CONCURRENCY = _new(
    ("--download-concurrency",), help="The most requests at once, 1 to 100", type=int, default=None
)
SSL_VALIDATION = _new(
    ("--ssl-validation",), help="Whether the registry's certificate is checked: true or false", type=flag, default=None
)
INCLUDE_REFERRERS = _new(
    ("--include-referrers",),
    help="Whether signatures and other referrers are included: true or false",
    type=flag,
    default=None,
)
MAX_TOTAL_BYTES = _new(
    ("--max-total-bytes",), help="Stop before the download when more than this would be stored", type=int, default=None
)
DIGEST_LIST = _new(
    ("--digest-list",),
    help="From where the digests of all tags are taken at once",
    choices=("auto", "off", "quay", "gitlab", "azure", "harbor", "zot", "docker_hub"),
    default=None,
)
REGEX = _new(
    ("--regex",),
    help="Also tags that this regular expression (RE2) matches as a whole; may be repeated",
    action="append",
    default=None,
)
REGEX_ALL = _new(
    ("--regex-all",),
    help="Only tags that this regular expression matches as well; may be repeated",
    action="append",
    default=None,
)
EXCLUDE_REGEX = _new(
    ("--exclude-regex",),
    help="Exclude tags that this regular expression matches; may be repeated",
    action="append",
    default=None,
)
SEMVER = _new(("--semver",), help="Only versions in this range, such as '>=3.18 <4', or JSON", default=None)
NEWEST = _new(("--newest",), help="Only so many of the newest versions with their variants, or JSON", default=None)
ORDER = _new(
    ("--order",),
    help="What the newest are",
    choices=("version", "first_seen", "pushed", "name"),
    default=None,
)
NEWER_THAN = _new(
    ("--newer-than",),
    help="Only tags that are newer, such as 90d or 2026-01-31; with --order first_seen or pushed",
    default=None,
)
DIGESTS = _new(
    ("--digest",),
    help="Hold this digest, sha256:…, or tag@sha256:… under that tag; may be repeated",
    action="append",
    dest="digests",
    default=None,
)
TAG_SETS = _new(("--tag-sets",), help="Sets of such rules, of which any may select a tag, as JSON", default=None)
#: By the names of a sync's parameters; a test compares them with the options of remotes.
REMOTE_OPTIONS = {
    "tags": TAG,
    "exclude_tags": EXCLUDE_TAG,
    "policy": POLICY,
    "download_concurrency": DOWNLOAD_CONCURRENCY,
    "conn_id": CONN_ID,
    "ssl_validation": SSL_VALIDATION,
    "platforms": PLATFORM,
    "include_referrers": INCLUDE_REFERRERS,
    "max_total_bytes": MAX_TOTAL_BYTES,
    "digest_list": DIGEST_LIST,
    "regex": REGEX,
    "regex_all": REGEX_ALL,
    "exclude_regex": EXCLUDE_REGEX,
    "semver": SEMVER,
    "newest": NEWEST,
    "order": ORDER,
    "newer_than": NEWER_THAN,
    "digests": DIGESTS,
    "tag_sets": TAG_SETS,
}
PUBLISH_AS = _new(("--publish-as",), help="Base path under which clients pull it, such as team/alpine", default=None)
REPLACE_UPSTREAM = _new(
    ("--replace-upstream",), help="Let another upstream replace the present one", action="store_true", default=False
)
APPROVE_REMOVALS = _new(
    ("--approve-removals",),
    help="Let a mirror remove more tags than its remote allows",
    action="store_true",
    default=False,
)
PLAN_ONLY = _new(
    ("--dry-run",), help="Show what would be synced, and change nothing", action="store_true", default=False
)
LOCAL = _new(
    ("--local",),
    help="Run the stages in this process, with your own rights and without a scheduler",
    action="store_true",
    default=False,
)
NO_WAIT = _new(
    ("--no-wait",), help="Start the run and print its id, without following it", action="store_true", default=False
)
SET = _new(
    ("--set",),
    help="Set any other option of the remote, OPTION=VALUE, such as max_removed_share=0.2; may be repeated",
    action="append",
    type=assignment,
    metavar="OPTION=VALUE",
    default=None,
)
NEW_NAME = _new(("--name",), help="Rename it", default=None)
OF_REPOSITORY_DESCRIPTION = _new(("--description",), help="Description; '' removes it", default=None)
RETAIN = _new(
    ("--retain-versions",),
    help="How many of the newest versions are kept; 0 keeps all",
    type=whole(0, MAX_NUMBER),
    default=None,
)
LEFT = _NameArg("repositories", "reference", help="NAME for the latest version, or NAME:NUMBER", metavar="VERSION")
RIGHT = _NameArg(
    "repositories",
    "base",
    help="Version to compare with, as NAME, NAME:NUMBER or NUMBER (default: the previous one)",
    nargs="?",
    metavar="BASE",
    default=None,
)
REFERENCE = _NameArg(
    "repositories", "reference", help="NAME, NAME:TAG, NAME@DIGEST, or the digest of a manifest", metavar="REFERENCE"
)
OF_NUMBER = _new(("--number",), help="In this version (default: the latest)", type=version_number, default=None)
FOLLOW = _new(("--follow",), help="Follow it until it has ended", action="store_true", default=False)
CHANGED_REPOSITORY = _NameArg("repositories", "repository", help="Name of the repository", metavar="NAME")
CHANGED_REMOTE = _NameArg("remotes", "remote", help="Name of the remote", metavar="NAME")
TAG_PART = _new(("--name",), help="Only tags that contain this text, ignoring case", dest="name_part", default=None)
