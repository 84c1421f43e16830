"""What commands are given: the arguments that Airflow's parser reads, each said once."""

from __future__ import annotations

from argparse import ArgumentTypeError
from collections.abc import Callable

from airflow.cli.cli_config import ARG_OUTPUT, ARG_YES, Arg

from registry_sync.domain.hrefs import MAX_NUMBER
from registry_sync.domain.runs import RunState

# Airflow's class carries no annotations.
_new: Callable[..., Arg] = Arg


def version_number(text: str) -> int:
    """The number of a version, from 1."""
    if not text.isascii() or not text.isdigit() or not 1 <= int(text[:20]) <= MAX_NUMBER:
        raise ArgumentTypeError(f"{text[:40]!r} is not the number of a version: give a whole number from 1")
    return int(text)


OUTPUT, YES = ARG_OUTPUT, ARG_YES
REPOSITORY = _new(("name",), help="Name of the repository")
REMOTE = _new(("name",), help="Name of the remote")
NAME_PART = _new(("--name",), help="Only those with this in their name, in any case", default=None)
NUMBER = _new(("number",), help="Number of the version", type=version_number)
OPTIONAL_NUMBER = _new(
    ("number",), help="Number of the version (default: the latest)", nargs="?", type=version_number, default=None
)
REVISION = _new(("-r", "--to-revision"), help="Schema revision to go back to; 'base' drops all", required=True)
RUN_STATE = _new(
    ("--state",), help="Only runs in this state", choices=tuple(state.value for state in RunState), default=None
)
OPTIONAL_REPOSITORY = _new(("name",), help="Only of this repository", nargs="?", default=None)
