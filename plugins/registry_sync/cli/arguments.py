"""What commands are given: the arguments that Airflow's parser reads, each said once.

Loaded by every ``airflow`` command, so that nothing is imported here that takes time.
"""

from __future__ import annotations

from argparse import ArgumentTypeError
from collections.abc import Callable
from typing import TYPE_CHECKING

from airflow.cli.cli_config import ARG_OUTPUT, ARG_YES, Arg

from registry_sync.pulp.hrefs import MAX_NUMBER

if TYPE_CHECKING:
    from registry_sync.domain.runs import RunState

# Airflow's class carries no annotations.
_new: Callable[..., Arg] = Arg
_LARGEST = 1_000_000
_LABEL_NAME, _LABEL_VALUE = 255, 1000


def version_number(text: str) -> int:
    """The number of a version, from 1."""
    if not text.isascii() or not text.isdigit() or not 1 <= int(text[:20]) <= MAX_NUMBER:
        raise ArgumentTypeError(f"{text[:40]!r} is not the number of a version: give a whole number from 1")
    return int(text)


def base_number(text: str) -> int:
    """The number of a version to compare with; 0 is the empty one before the first."""
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
        raise ArgumentTypeError(f"{text[:40]!r} is not a label: give NAME=VALUE, or NAME= to remove it")
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
NAME_PART = _new(("--name",), help="Only those with this in their name, in any case", default=None)
NUMBER = _new(("number",), help="Number of the version", type=version_number)
OPTIONAL_NUMBER = _new(
    ("number",), help="Number of the version (default: the latest)", nargs="?", type=version_number, default=None
)
REVISION = _new(("-r", "--to-revision"), help="Schema revision to go back to; 'base' drops all", required=True)
RUN_STATE = _new(("--state",), help="Only runs in this state, such as failed", type=run_state, default=None)
OPTIONAL_REPOSITORY = _new(("name",), help="Only of this repository", nargs="?", default=None)
RUN_ID = _new(("run_id",), help="Run id of the DAG run, such as manual__2026-11-25T03:00:00+00:00")
TASK = _new(
    ("--task",),
    help="The task that lists, of a run that has several syncs: its task_id, such as alpine.list_tags or list_tags[1]",
    default=None,
)
DAG_ID = _new(("--dag-id",), help="The DAG of the run (default: the one that sync_dag_id names)", default=None)
BASE = _new(
    ("--base",), help="Version to compare with, 0 for nothing (default: the one before)", type=base_number, default=None
)
BASE_REPOSITORY = _new(
    ("--base-repository",),
    help="Compare with a version of this repository, its latest unless --base says",
    default=None,
)
SOURCE = _new(("source",), help="Name of the repository to take tags from")
TARGET = _new(("target",), help="Name of the repository that gets them")
NUMBER_OPTION = _new(
    ("--number",), help="Version of the source (default: the latest)", type=version_number, default=None
)
TAG = _new(("--tag",), help="Only this tag, a name or a glob; may be repeated", action="append", default=None)
EXCLUDE_TAG = _new(("--exclude-tag",), help="Leave out this tag, likewise", action="append", default=None)
MIRROR = _new(("--mirror",), help="Remove from the target what is not promoted", action="store_true", default=False)
DESCRIPTION = _new(("--description",), help="What to say of the new version", default=None)
DRY_RUN = _new(("--dry-run",), help="Say what would go, and change nothing", action="store_true", default=False)
GRACE_HOURS = _new(
    ("--grace-hours",),
    help="How long content must have been unneeded (default: the setting orphan_grace_hours)",
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
    help="Read this share of the stored blobs, from 0 to 1, those first that were not read for longest",
    type=amount,
    default=1.0,
)
MIB_PER_SECOND = _new(("--mib-per-second",), help="Read no faster than this", type=amount, default=None)
REPAIR = _new(
    ("--repair",), help="Fetch what is lost again from the remotes it came from", action="store_true", default=False
)
DIGEST = _new(("digest",), help="Digest of a blob or manifest, such as sha256:…")
LABEL = _new(
    ("--label",),
    help="NAME=VALUE to set a label, NAME= to remove it; may be repeated",
    action="append",
    type=label,
    default=None,
)
NEW_DESCRIPTION = _new(("--description",), help="What to say of it; '' for nothing", default=None)
