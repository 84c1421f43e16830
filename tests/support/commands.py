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


def completed(line: str) -> list[str]:
    """What may stand in place of the last word of ``airflow <line>``, as argcomplete gives it to shells."""
    from argcomplete.finders import CompletionFinder

    *before, last = ["airflow", *line.split(" ")]
    # It changes the parser that it is given, so that the parser of commands stays for these.
    finder = CompletionFinder(_parser.__wrapped__(), always_complete_options=False)
    words: list[str] = finder._get_completions(before, last, "", None)  # type: ignore[no-untyped-call]
    return sorted({word.strip() for word in words})
