"""The tree of commands: names, what they are for, their arguments, and where each is.

A command's module is imported when it runs.
"""

from __future__ import annotations

from airflow.cli.cli_config import ActionCommand, Arg, GroupCommand, lazy_load_command

from registry_sync.cli import arguments as given


def _command(name: str, purpose: str, where: str, *arguments: Arg) -> ActionCommand:
    """``where`` is ``module.function`` below this package."""
    return ActionCommand(name, purpose, lazy_load_command(f"registry_sync.cli.{where}"), arguments)


_DB = (
    _command("upgrade", "Create or migrate the metadata database", "storage_commands.upgrade"),
    _command("check", "Say whether the metadata database can be used as it is", "storage_commands.check", given.OUTPUT),
    _command(
        "downgrade", "Migrate the metadata database back", "storage_commands.downgrade", given.REVISION, given.YES
    ),
)
_REPOSITORY = (
    _command("list", "List repositories", "resource_commands.list_repositories", given.NAME_PART, given.OUTPUT),
    _command("show", "Show a repository", "resource_commands.show_repository", given.REPOSITORY, given.OUTPUT),
)
_REMOTE = (
    _command("list", "List remotes", "resource_commands.list_remotes", given.NAME_PART, given.OUTPUT),
    _command("show", "Show a remote", "resource_commands.show_remote", given.REMOTE, given.OUTPUT),
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
        "Show how a version differs from another one",
        "version_commands.diff",
        given.REPOSITORY,
        given.OPTIONAL_NUMBER,
        given.BASE,
        given.BASE_REPOSITORY,
        given.OUTPUT,
    ),
    _command(
        "rollback",
        "Make a new version that holds what an older one held",
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
        "Say something of a version: a description, labels",
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
        "Show where content came from and who holds it",
        "resource_commands.show_content",
        given.DIGEST,
        given.OUTPUT,
    ),
)
_RUN = (
    _command(
        "list",
        "List sync runs",
        "resource_commands.list_runs",
        given.OPTIONAL_REPOSITORY,
        given.RUN_STATE,
        given.OUTPUT,
    ),
    _command(
        "approve",
        "Let a stopped run remove more tags than its remote allows, and go on",
        "resource_commands.approve",
        given.RUN_ID,
        given.DAG_ID,
        given.TASK,
        given.YES,
    ),
)
_SPACE = (
    _command("usage", "Show what content takes in the blob store", "storage_commands.usage", given.OUTPUT),
    _command(
        "verify",
        "Hold stored blobs against the database and their digests",
        "storage_commands.verify",
        given.SHARE,
        given.MIB_PER_SECOND,
        given.REPAIR,
        given.OUTPUT,
    ),
    _command(
        "gc",
        "Delete content that no version and no sync needs",
        "storage_commands.collect",
        given.GRACE_HOURS,
        given.DRY_RUN,
        given.YES,
        given.OUTPUT,
    ),
    _command(
        "reclaim",
        "Delete bytes that only the given repositories hold; their versions stay",
        "storage_commands.reclaim",
        given.NAMES,
        given.KEEP,
        given.DRY_RUN,
        given.YES,
        given.OUTPUT,
    ),
)
COMMANDS = (
    GroupCommand(
        "registry-sync",
        "Mirror container repositories as versioned content",
        (
            GroupCommand("db", "Look after the metadata database of registry-sync", _DB),
            GroupCommand("repository", "Look at repositories", _REPOSITORY),
            GroupCommand("remote", "Look at remotes", _REMOTE),
            GroupCommand("version", "Look at repository versions, go back to them, promote them", _VERSION),
            GroupCommand("content", "Look at blobs and manifests", _CONTENT),
            GroupCommand("run", "Look at sync runs, and let stopped ones go on", _RUN),
            *_SPACE,
        ),
    ),
)
