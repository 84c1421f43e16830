"""The tree of commands: their names, purposes, arguments and functions.

Every ``airflow`` command loads this module, so it imports nothing slow; the module of a command is imported when it
runs.
"""

from __future__ import annotations

import os
import sys
from collections.abc import Callable
from functools import wraps
from typing import Any

from airflow.cli.cli_config import ActionCommand, Arg, GroupCommand, lazy_load_command

from registry_sync.cli import arguments as given

#: What a shell reports of a program that wrote to a closed pipe: 128 and the number of SIGPIPE.
_BROKEN_PIPE = 141


def until_nobody_reads(command: Callable[..., Any]) -> Callable[..., Any]:
    """``command``, ended without a traceback once its output is read no further, as by ``head``."""

    @wraps(command)
    def run(*given: Any) -> None:
        try:
            command(*given)
            sys.stdout.flush()
        except BrokenPipeError:
            # What is still buffered goes nowhere, or Python would report it when it flushes at its end.
            os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
            sys.exit(_BROKEN_PIPE)

    return run


def _command(name: str, purpose: str, where: str, *arguments: Arg) -> ActionCommand:
    """``where`` is ``module.function`` below this package."""
    command = until_nobody_reads(lazy_load_command(f"registry_sync.cli.{where}"))
    return ActionCommand(name, purpose, command, arguments)


_DB = (
    _command("upgrade", "Create or migrate the metadata database", "storage_commands.upgrade"),
    _command(
        "check", "Check whether the metadata database can be used as it is", "storage_commands.check", given.OUTPUT
    ),
    _command(
        "downgrade", "Migrate the metadata database back", "storage_commands.downgrade", given.REVISION, given.YES
    ),
)
_OF_REPOSITORY = (given.OF_REPOSITORY_DESCRIPTION, given.RETAIN, given.LABEL)
_PLACE = (given.URL, given.UPSTREAM_NAME)
_REPOSITORY = (
    _command("list", "List repositories", "resource_commands.list_repositories", given.NAME_PART, given.OUTPUT),
    _command("show", "Show a repository", "resource_commands.show_repository", given.REPOSITORY, given.OUTPUT),
    _command(
        "create",
        "Create an empty repository",
        "resource_commands.create_repository",
        given.REPOSITORY,
        *_OF_REPOSITORY,
        given.OUTPUT,
    ),
    _command(
        "update",
        "Change a repository; its versions stay",
        "resource_commands.change_repository",
        given.CHANGED_REPOSITORY,
        given.NEW_NAME,
        *_OF_REPOSITORY,
        given.OUTPUT,
    ),
    _command(
        "import",
        "Make the first version of a repository from a folder",
        "import_commands.import_repository",
        given.SYNCED,
        given.IMPORTED_FOLDER,
        given.FROM_REMOTE,
        *_PLACE,
        given.FROM_NAME,
        given.IMPORTED_TAG,
        given.OUTPUT,
    ),
    _command(
        "delete",
        "Delete a repository with its versions",
        "resource_commands.delete_repository",
        given.REPOSITORY,
        given.YES,
    ),
    _command(
        "pulls",
        "Show when the tags of a repository were last pulled",
        "serving_commands.list_pulls",
        given.REPOSITORY,
        given.UNUSED_DAYS,
        given.OUTPUT,
    ),
)
_REMOTE = (
    _command("list", "List remotes", "resource_commands.list_remotes", given.NAME_PART, given.OUTPUT),
    _command("show", "Show a remote", "resource_commands.show_remote", given.REMOTE, given.OUTPUT),
    _command(
        "create",
        "Create a remote; nothing is synced yet",
        "resource_commands.create_remote",
        given.REMOTE,
        *_PLACE,
        *given.REMOTE_OPTIONS.values(),
        given.SET,
        given.LABEL,
        given.OUTPUT,
    ),
    _command(
        "update",
        "Change options of a remote, for later syncs",
        "resource_commands.change_remote",
        given.CHANGED_REMOTE,
        given.NEW_NAME,
        *_PLACE,
        *given.REMOTE_OPTIONS.values(),
        given.SET,
        given.LABEL,
        given.OUTPUT,
    ),
    _command(
        "delete", "Delete a remote; what was synced stays", "resource_commands.delete_remote", given.REMOTE, given.YES
    ),
)
_VERSION = (
    _command(
        "list", "List the versions of a repository", "version_commands.list_versions", given.REPOSITORY, given.OUTPUT
    ),
    _command(
        "show",
        "Show a version of a repository",
        "version_commands.show_version",
        given.REPOSITORY,
        given.OPTIONAL_NUMBER,
        given.OUTPUT,
    ),
    _command(
        "diff",
        "Compare a version with another one",
        "version_commands.diff",
        given.REPOSITORY,
        given.OPTIONAL_NUMBER,
        given.BASE,
        given.BASE_REPOSITORY,
        given.OUTPUT,
    ),
    _command(
        "rollback",
        "Make a new version with the content of an older one",
        "version_commands.roll_back",
        given.REPOSITORY,
        given.NUMBER,
        given.DESCRIPTION,
        given.OUTPUT,
    ),
    _command(
        "promote",
        "Copy tags of a version into another repository",
        "version_commands.promote",
        given.SOURCE,
        given.TARGET,
        given.NUMBER_OPTION,
        given.TAG,
        given.EXCLUDE_TAG,
        given.MIRROR,
        given.DESCRIPTION,
        given.YES,
        given.OUTPUT,
    ),
    _command(
        "describe",
        "Set the description and labels of a version",
        "version_commands.describe",
        given.REPOSITORY,
        given.NUMBER,
        given.NEW_DESCRIPTION,
        given.LABEL,
        given.OUTPUT,
    ),
    _command("delete", "Delete a version", "version_commands.delete", given.REPOSITORY, given.NUMBER, given.YES),
)
_CONTENT = (
    _command(
        "show",
        "Show where content came from and which repositories have it",
        "content_commands.show_content",
        given.DIGEST,
        given.OUTPUT,
    ),
)
_TAG = (
    _command(
        "list",
        "List the tags of a version",
        "content_commands.list_tags",
        given.REPOSITORY,
        given.OF_NUMBER,
        given.TAG_PART,
        given.OUTPUT,
    ),
)
_RUN = (
    _command(
        "show",
        "Show the progress and the result of a run",
        "run_commands.show_run",
        given.RUN_ID,
        given.DAG_ID,
        given.FOLLOW,
        given.OUTPUT,
    ),
    _command("cancel", "Cancel a run", "run_commands.cancel", given.RUN_ID, given.DAG_ID, given.YES),
    _command(
        "list",
        "List sync runs",
        "run_commands.list_runs",
        given.OPTIONAL_REPOSITORY,
        given.RUN_STATE,
        given.OUTPUT,
    ),
    _command(
        "approve",
        "Approve the removals of a stopped run, so that it continues",
        "run_commands.approve",
        given.RUN_ID,
        given.DAG_ID,
        given.TASK,
        given.YES,
    ),
)
_SPACE = (
    _command("usage", "Show the space that content uses in the blob store", "storage_commands.usage", given.OUTPUT),
    _command(
        "verify",
        "Compare stored blobs with the database and their digests",
        "storage_commands.verify",
        given.SHARE,
        given.MIB_PER_SECOND,
        given.REPAIR,
        given.OUTPUT,
    ),
    _command(
        "gc",
        "Delete content that no version and no sync references",
        "storage_commands.collect",
        given.GRACE_HOURS,
        given.DRY_RUN,
        given.YES,
        given.OUTPUT,
    ),
    _command(
        "reclaim",
        "Delete bytes that only the given repositories reference; their versions stay",
        "storage_commands.reclaim",
        given.NAMES,
        given.KEEP,
        given.DRY_RUN,
        given.YES,
        given.OUTPUT,
    ),
)
_DISTRIBUTION = (
    _command("list", "List distributions", "serving_commands.list_distributions", given.OUTPUT),
    _command("show", "Show a distribution", "serving_commands.show_distribution", given.DISTRIBUTION, given.OUTPUT),
    _command(
        "create",
        "Serve a repository to container clients",
        "serving_commands.create_distribution",
        given.DISTRIBUTION,
        given.OF_REPOSITORY,
        given.BASE_PATH,
        given.SERVED_NUMBER,
        given.PUBLIC,
        given.OUTPUT,
    ),
    _command(
        "update",
        "Change what a distribution serves, to whom, or under which name",
        "serving_commands.change_distribution",
        given.DISTRIBUTION,
        given.NEW_REPOSITORY,
        given.NEW_BASE_PATH,
        given.SERVED_NUMBER,
        given.SERVE_LATEST,
        given.PUBLIC,
        given.PRIVATE,
        given.OUTPUT,
    ),
    _command("delete", "Delete a distribution", "serving_commands.delete_distribution", given.DISTRIBUTION, given.YES),
)
_ROBOT = (
    _command("list", "List robots", "serving_commands.list_robots", given.OUTPUT),
    _command(
        "create",
        "Make a robot and print its secret, once",
        "serving_commands.create_robot",
        given.ROBOT,
        given.SCOPE,
        given.DAYS,
        given.OUTPUT,
    ),
    _command("revoke", "Delete a robot", "serving_commands.revoke_robot", given.ROBOT, given.YES),
)
_FLEET = (
    _command(
        "validate",
        "Print the mistakes in the files of mirrors, with file and line",
        "fleet_commands.validate",
        given.FLEET_FILE,
        given.OUTPUT,
    ),
    _command(
        "show",
        "Show mirrors as declared, with what they inherit",
        "fleet_commands.show",
        given.OPTIONAL_MIRROR,
        given.FLEET_PATH,
        given.OF_GROUP,
        given.OUTPUT,
    ),
    _command(
        "plan",
        "Show what a sync of each mirror would do, and change nothing",
        "fleet_commands.plan",
        given.MIRRORS,
        given.FLEET_PATH,
        given.OF_GROUP,
        given.JOBS,
        given.OUTPUT,
    ),
    _command(
        "discover",
        "Declare mirrors for the repositories that a registry lists",
        "discovery_commands.discover",
        given.DISCOVERED_URL,
        given.DISCOVERED_INCLUDE,
        given.DISCOVERED_EXCLUDE,
        given.DISCOVERED_MOST,
        given.DISCOVERED_NAME,
        given.DISCOVERED_GROUP,
        given.CONN_ID,
        given.DISCOVERED_FILE,
    ),
    _command(
        "import",
        "Write mirrors.yaml from another tool's file, and say what it cannot carry over",
        "fleet_commands.import_file",
        given.IMPORTED_FORMAT,
        given.IMPORTED_FILE,
        given.WRITTEN_FILE,
        given.OVERWRITE,
        given.NAMED_AFTER,
    ),
    _command(
        "status",
        "Show what became of the mirrors of fleets, the last result of each",
        "mirror_commands.status",
        given.FAILED_ONLY,
        given.OF_RUN,
        given.OF_DAG,
        given.OUTPUT,
    ),
)
_SERVE = _command(
    "serve",
    "Serve what was synced to container clients",
    "serving_commands.serve",
    given.HOST,
    given.PORT,
    given.WORKERS,
    given.CERTIFICATE,
    given.KEY,
)
_SYNC = _command(
    "sync",
    "Sync a repository, and show the version that was made",
    "sync_commands.sync",
    given.SYNCED,
    given.FROM_REMOTE,
    *_PLACE,
    *given.REMOTE_OPTIONS.values(),
    given.MODE,
    given.PUBLISH_AS,
    given.REPLACE_UPSTREAM,
    given.APPROVE_REMOVALS,
    given.PLAN_ONLY,
    given.LOCAL,
    given.NO_WAIT,
    given.OUTPUT,
)
_INSPECT = _command(
    "inspect",
    "Show platforms, layers and sizes of what a tag or digest refers to",
    "content_commands.inspect",
    given.REFERENCE,
    given.OF_NUMBER,
    given.OUTPUT,
)
_DIFF = _command(
    "diff",
    "Compare any two versions, also of two repositories",
    "version_commands.diff_any",
    given.LEFT,
    given.RIGHT,
    given.OUTPUT,
)
COMMANDS = (
    GroupCommand(
        "registry-sync",
        "Mirror container repositories as versioned content",
        (
            GroupCommand("db", "Manage the metadata database of registry-sync", _DB),
            _SYNC,
            GroupCommand("run", "Show syncs, cancel them, and approve the removals of stopped ones", _RUN),
            GroupCommand("fleet", "Check, plan, show and import mirrors that files declare", _FLEET),
            GroupCommand("repository", "Show, create, change and delete repositories", _REPOSITORY),
            GroupCommand("remote", "Show, create, change and delete remotes", _REMOTE),
            GroupCommand("version", "Show, roll back to and promote repository versions", _VERSION),
            GroupCommand("tag", "Show tags", _TAG),
            GroupCommand("content", "Show blobs and manifests", _CONTENT),
            _INSPECT,
            _DIFF,
            GroupCommand("distribution", "Serve repositories to container clients", _DISTRIBUTION),
            GroupCommand("robot", "Manage logins of programs that pull", _ROBOT),
            _SERVE,
            *_SPACE,
        ),
    ),
)
