"""Command lines of ``airflow registry-sync``, run in the process of the test."""

from __future__ import annotations

from argparse import ArgumentParser
from functools import cache
from typing import Protocol

from registry_sync.cli import get_cli_commands


class Run(Protocol):
    """Runs a command line, given without ``airflow registry-sync`` before it."""

    def __call__(self, *words: str) -> None: ...


def run_command(*words: str) -> None:
    """Runs a command line as Airflow's own parser reads it."""
    arguments = _parser().parse_args(["registry-sync", *words])
    arguments.func(arguments)


@cache
def _parser() -> ArgumentParser:
    from airflow.cli.cli_parser import _add_command

    parser = ArgumentParser("airflow")
    subcommands = parser.add_subparsers()
    for command in get_cli_commands():
        _add_command(subcommands, command)
    return parser
