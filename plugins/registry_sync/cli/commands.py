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
    _command("upgrade", "Create or migrate the metadata database", "metadata.upgrade"),
    _command("check", "Say whether the metadata database can be used as it is", "metadata.check", given.OUTPUT),
    _command("downgrade", "Migrate the metadata database back", "metadata.downgrade", given.REVISION, given.YES),
)
_REPOSITORY = (
    _command("list", "List repositories", "repositories.list_all", given.NAME_PART, given.OUTPUT),
    _command("show", "Show a repository", "repositories.show", given.REPOSITORY, given.OUTPUT),
)
_REMOTE = (
    _command("list", "List remotes", "remotes.list_all", given.NAME_PART, given.OUTPUT),
    _command("show", "Show a remote", "remotes.show", given.REMOTE, given.OUTPUT),
)
_VERSION = (
    _command("list", "List the versions of a repository", "versions.list_all", given.REPOSITORY, given.OUTPUT),
    _command(
        "show",
        "Show a version of a repository",
        "versions.show",
        given.REPOSITORY,
        given.OPTIONAL_NUMBER,
        given.OUTPUT,
    ),
    _command(
        "diff",
        "Show how a version differs from another one",
        "history.diff",
        given.REPOSITORY,
        given.OPTIONAL_NUMBER,
        given.BASE,
        given.BASE_REPOSITORY,
        given.OUTPUT,
    ),
    _command(
        "rollback",
        "Make a new version that holds what an older one held",
        "history.roll_back",
        given.REPOSITORY,
        given.NUMBER,
        given.DESCRIPTION,
        given.OUTPUT,
    ),
    _command(
        "promote",
        "Copy tags of a version into another repository",
        "history.promote",
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
        "versions.describe",
        given.REPOSITORY,
        given.NUMBER,
        given.NEW_DESCRIPTION,
        given.LABEL,
        given.OUTPUT,
    ),
    _command("delete", "Delete a version", "history.delete", given.REPOSITORY, given.NUMBER, given.YES),
)
_CONTENT = (
    _command("show", "Show where content came from and who holds it", "content.show", given.DIGEST, given.OUTPUT),
)
_RUN = (
    _command("list", "List sync runs", "sync_runs.list_all", given.OPTIONAL_REPOSITORY, given.RUN_STATE, given.OUTPUT),
    _command(
        "approve",
        "Let a stopped run remove more tags than its remote allows, and go on",
        "sync_runs.approve",
        given.RUN_ID,
        given.DAG_ID,
        given.TASK,
        given.YES,
    ),
)
_SPACE = (
    _command("usage", "Show what content takes in the blob store", "space.usage", given.OUTPUT),
    _command(
        "verify",
        "Hold stored blobs against the database and their digests",
        "verification.verify",
        given.SHARE,
        given.MIB_PER_SECOND,
        given.REPAIR,
        given.OUTPUT,
    ),
    _command(
        "gc",
        "Delete content that no version and no sync needs",
        "space.collect",
        given.GRACE_HOURS,
        given.DRY_RUN,
        given.YES,
        given.OUTPUT,
    ),
    _command(
        "reclaim",
        "Delete bytes that only the given repositories hold; their versions stay",
        "space.reclaim",
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
