"""The tree of commands: their names, purposes, arguments and functions.

Every ``airflow`` command loads this module, so it imports nothing slow; the module of a command is imported when it
runs.
"""

from __future__ import annotations

from argparse import ArgumentTypeError
from collections.abc import Callable
from typing import TYPE_CHECKING

from airflow.cli.cli_config import ARG_OUTPUT, ARG_YES, ActionCommand, Arg, GroupCommand, lazy_load_command

from registry_sync.pulp.hrefs import MAX_NUMBER

if TYPE_CHECKING:
    from registry_sync.domain.runs import RunState


# Airflow's class has no annotations.
_new: Callable[..., Arg] = Arg
_LARGEST = 1_000_000
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
REPOSITORY = _new(("name",), help="Name of the repository")
REMOTE = _new(("name",), help="Name of the remote")
NAME_PART = _new(("--name",), help="Only names that contain this text, ignoring case", default=None)
NUMBER = _new(("number",), help="Number of the version", type=version_number)
OPTIONAL_NUMBER = _new(
    ("number",), help="Number of the version (default: the latest)", nargs="?", type=version_number, default=None
)
REVISION = _new(
    ("-r", "--to-revision"), help="Schema revision to migrate back to; 'base' drops all tables", required=True
)
RUN_STATE = _new(("--state",), help="Only runs in this state, such as failed", type=run_state, default=None)
OPTIONAL_REPOSITORY = _new(("name",), help="Only of this repository", nargs="?", default=None)
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
BASE_REPOSITORY = _new(
    ("--base-repository",),
    help="Compare with a version of this repository (default: its latest, or --base)",
    default=None,
)
SOURCE = _new(("source",), help="Name of the repository to copy tags from")
TARGET = _new(("target",), help="Name of the repository to copy tags into")
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
NAMES = _new(("names",), help="Names of repositories", nargs="+", metavar="NAME")
KEEP = _new(
    ("--keep",),
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
UNUSED_DAYS = _new(("--unused-days",), help="Only what nobody pulled for that many days", type=int, default=None)
OF_REPOSITORY = _new(("--repository",), help="Repository that is served (default: the one of that name)", default=None)
NEW_REPOSITORY = _new(("--repository",), help="Serve this repository from now on, its latest version", default=None)
NEW_BASE_PATH = _new(("--base-path",), help="Name that clients pull from now on", default=None)
SERVED_NUMBER = _new(
    ("--number",), help="Always serve this version (default: the latest)", type=version_number, default=None
)
SERVE_LATEST = _new(("--latest",), help="Serve the latest version again", action="store_true", default=False)
DISTRIBUTION = _new(("name",), help="Name of the distribution")
ROBOT = _new(("name",), help="Name of the robot, with which it logs in")
SCOPE = _new(
    ("--scope",),
    help="Base paths that it may pull, as a glob such as team-a/* ; may be repeated",
    action="append",
    default=None,
    required=True,
)
DAYS = _new(("--days",), help="In how many days it expires (default: never)", type=amount, default=None)
HOST = _new(("--host",), help="Address to serve at; 0.0.0.0 for all (default: 127.0.0.1)", default="127.0.0.1")
PORT = _new(("--port",), help="Port to serve at (default: 5050)", type=int, default=5050)
WORKERS = _new(("--workers",), help="Processes that serve (default: 2)", type=int, default=2)
CERTIFICATE = _new(("--certificate",), help="PEM file of the certificate, to serve HTTPS", default=None)
KEY = _new(("--key",), help="PEM file of its private key", default=None)


def _command(name: str, purpose: str, where: str, *arguments: Arg) -> ActionCommand:
    """``where`` is ``module.function`` below this package."""
    return ActionCommand(name, purpose, lazy_load_command(f"registry_sync.cli.{where}"), arguments)


_DB = (
    _command("upgrade", "Create or migrate the metadata database", "storage_commands.upgrade"),
    _command("check", "Check whether the metadata database can be used as it is", "storage_commands.check", OUTPUT),
    _command("downgrade", "Migrate the metadata database back", "storage_commands.downgrade", REVISION, YES),
)
_REPOSITORY = (
    _command("list", "List repositories", "resource_commands.list_repositories", NAME_PART, OUTPUT),
    _command("show", "Show a repository", "resource_commands.show_repository", REPOSITORY, OUTPUT),
    _command(
        "pulls",
        "Show when the tags of a repository were last pulled",
        "serving_commands.list_pulls",
        REPOSITORY,
        UNUSED_DAYS,
        OUTPUT,
    ),
)
_REMOTE = (
    _command("list", "List remotes", "resource_commands.list_remotes", NAME_PART, OUTPUT),
    _command("show", "Show a remote", "resource_commands.show_remote", REMOTE, OUTPUT),
)
_VERSION = (
    _command("list", "List the versions of a repository", "version_commands.list_versions", REPOSITORY, OUTPUT),
    _command(
        "show",
        "Show a version of a repository",
        "version_commands.show_version",
        REPOSITORY,
        OPTIONAL_NUMBER,
        OUTPUT,
    ),
    _command(
        "diff",
        "Compare a version with another one",
        "version_commands.diff",
        REPOSITORY,
        OPTIONAL_NUMBER,
        BASE,
        BASE_REPOSITORY,
        OUTPUT,
    ),
    _command(
        "rollback",
        "Make a new version with the content of an older one",
        "version_commands.roll_back",
        REPOSITORY,
        NUMBER,
        DESCRIPTION,
        OUTPUT,
    ),
    _command(
        "promote",
        "Copy tags of a version into another repository",
        "version_commands.promote",
        SOURCE,
        TARGET,
        NUMBER_OPTION,
        TAG,
        EXCLUDE_TAG,
        MIRROR,
        DESCRIPTION,
        YES,
        OUTPUT,
    ),
    _command(
        "describe",
        "Set the description and labels of a version",
        "version_commands.describe",
        REPOSITORY,
        NUMBER,
        NEW_DESCRIPTION,
        LABEL,
        OUTPUT,
    ),
    _command("delete", "Delete a version", "version_commands.delete", REPOSITORY, NUMBER, YES),
)
_CONTENT = (
    _command(
        "show",
        "Show where content came from and which repositories have it",
        "resource_commands.show_content",
        DIGEST,
        OUTPUT,
    ),
)
_RUN = (
    _command(
        "list",
        "List sync runs",
        "resource_commands.list_runs",
        OPTIONAL_REPOSITORY,
        RUN_STATE,
        OUTPUT,
    ),
    _command(
        "approve",
        "Approve the removals of a stopped run, so that it continues",
        "resource_commands.approve",
        RUN_ID,
        DAG_ID,
        TASK,
        YES,
    ),
)
_SPACE = (
    _command("usage", "Show the space that content uses in the blob store", "storage_commands.usage", OUTPUT),
    _command(
        "verify",
        "Compare stored blobs with the database and their digests",
        "storage_commands.verify",
        SHARE,
        MIB_PER_SECOND,
        REPAIR,
        OUTPUT,
    ),
    _command(
        "gc",
        "Delete content that no version and no sync references",
        "storage_commands.collect",
        GRACE_HOURS,
        DRY_RUN,
        YES,
        OUTPUT,
    ),
    _command(
        "reclaim",
        "Delete bytes that only the given repositories reference; their versions stay",
        "storage_commands.reclaim",
        NAMES,
        KEEP,
        DRY_RUN,
        YES,
        OUTPUT,
    ),
)
_DISTRIBUTION = (
    _command("list", "List distributions", "serving_commands.list_distributions", OUTPUT),
    _command("show", "Show a distribution", "serving_commands.show_distribution", DISTRIBUTION, OUTPUT),
    _command(
        "create",
        "Serve a repository to container clients",
        "serving_commands.create_distribution",
        DISTRIBUTION,
        OF_REPOSITORY,
        BASE_PATH,
        SERVED_NUMBER,
        PUBLIC,
        OUTPUT,
    ),
    _command(
        "update",
        "Change what a distribution serves, to whom, or under which name",
        "serving_commands.change_distribution",
        DISTRIBUTION,
        NEW_REPOSITORY,
        NEW_BASE_PATH,
        SERVED_NUMBER,
        SERVE_LATEST,
        PUBLIC,
        PRIVATE,
        OUTPUT,
    ),
    _command("delete", "Delete a distribution", "serving_commands.delete_distribution", DISTRIBUTION, YES),
)
_ROBOT = (
    _command("list", "List robots", "serving_commands.list_robots", OUTPUT),
    _command(
        "create",
        "Make a robot and print its secret, once",
        "serving_commands.create_robot",
        ROBOT,
        SCOPE,
        DAYS,
        OUTPUT,
    ),
    _command("revoke", "Delete a robot", "serving_commands.revoke_robot", ROBOT, YES),
)
_SERVE = _command(
    "serve",
    "Serve what was synced to container clients",
    "serving_commands.serve",
    HOST,
    PORT,
    WORKERS,
    CERTIFICATE,
    KEY,
)
COMMANDS = (
    GroupCommand(
        "registry-sync",
        "Mirror container repositories as versioned content",
        (
            GroupCommand("db", "Manage the metadata database of registry-sync", _DB),
            GroupCommand("repository", "Show repositories", _REPOSITORY),
            GroupCommand("remote", "Show remotes", _REMOTE),
            GroupCommand("version", "Show, roll back to and promote repository versions", _VERSION),
            GroupCommand("content", "Show blobs and manifests", _CONTENT),
            GroupCommand("run", "Show sync runs, and approve the removals of stopped ones", _RUN),
            GroupCommand("distribution", "Serve repositories to container clients", _DISTRIBUTION),
            GroupCommand("robot", "Manage logins of programs that pull", _ROBOT),
            _SERVE,
            *_SPACE,
        ),
    ),
)
