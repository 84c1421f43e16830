"""What ``airflow registry-sync`` loads beyond what every ``airflow`` command does: this is what its start costs."""

from __future__ import annotations

import json
import sys
from pathlib import Path

from registry_sync.db.database import Database
from support.fresh_interpreters import run_program

#: Airflow's parser is made with our commands in it; what is loaded from then on is printed.
PROGRAM = """
import json, sys
from airflow.cli.cli_parser import get_parser

parser, done = get_parser(), set(sys.modules)
for line in sys.argv[1:]:
    arguments = parser.parse_args(["registry-sync", *line.split()])
    arguments.func(arguments)
json.dump([sorted(done), sorted(set(sys.modules) - done)], sys.stderr)
"""
READS = ("repository list", "version list hello", "run list", "remote list", "distribution list")
#: Of other packages: what draws tables, and finds the name that was meant.
ALLOWED = {"registry_sync", "difflib", "rich", "tabulate", "wcwidth"}
#: The modules of ours that a command which reads may load. Each costs 2 to 5 ms.
MOST_OWN = 93


def test_reading_commands_load_little_beyond_airflow(tmp_path: Path) -> None:
    address = f"sqlite:///{tmp_path / 'registry_sync.db'}"
    with Database.connect(address) as database:
        database.ready()
        database.repositories.ensure("hello")
    _, errors = run_program(PROGRAM, *READS, home=tmp_path, settings={"sql_alchemy_conn": address})
    before, loaded = json.loads(errors[errors.index('[["') :])
    assert [name for name in before if name.startswith("registry_sync.") and not _is_of_the_parser(name)] == []
    others = {name.partition(".")[0] for name in loaded if not _is_of_airflow_or_python(name, before)}
    assert others - ALLOWED == set()
    assert len([name for name in loaded if name.startswith("registry_sync")]) <= MOST_OWN


def _is_of_the_parser(name: str) -> bool:
    own = ("registry_sync.cli", "registry_sync.errors", "registry_sync.pulp", "registry_sync.provider")
    return name.startswith(own)


def _is_of_airflow_or_python(name: str, before: list[str]) -> bool:
    """Airflow's own modules, and parts of packages that every command has loaded, such as SQLAlchemy's dialects."""
    top = name.partition(".")[0]
    return top in {"airflow", *sys.stdlib_module_names} - {"difflib"} or top in {
        known.partition(".")[0] for known in before
    }
