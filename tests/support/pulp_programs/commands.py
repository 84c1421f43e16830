"""Runs ``pulp`` with the words of each line, a JSON list, and prints what became of it as one line of JSON.

One process for many commands: to start the program takes longer than most of what it does.
"""

from __future__ import annotations

import json
import sys

from click.testing import CliRunner  # type: ignore[import-not-found, unused-ignore]  # of the other environment
from pulp_cli import load_plugins, main  # type: ignore[import-not-found]  # of the other environment

load_plugins()
for line in sys.stdin:
    done = CliRunner().invoke(main, json.loads(line), prog_name="pulp")
    found = {"status": done.exit_code, "output": done.stdout, "errors": done.stderr, "defect": repr(done.exception)}
    print(json.dumps(found), flush=True)
