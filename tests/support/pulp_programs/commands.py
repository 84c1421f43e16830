"""Runs ``pulp`` with the words of each line, a JSON list, and prints what became of it as one line of JSON.

One process for many commands: to start the program takes longer than most of what it does. So does to parse the
document of the API, which each command reads from its cache or from the server: what one has made of the same bytes
serves the next.
"""

from __future__ import annotations

import json
import sys
from typing import Any

from click.testing import CliRunner  # type: ignore[import-not-found, unused-ignore]  # of the other environment
from pulp_cli import load_plugins, main  # type: ignore[import-not-found]  # of the other environment
from pulp_glue.common.openapi import OpenAPI  # type: ignore[import-not-found]  # of the other environment

_parse = OpenAPI._parse_api
_parsed: dict[tuple[type, bytes], dict[str, Any]] = {}


def _parse_once(api: Any, data: bytes) -> None:
    key = (type(api), data)
    if key not in _parsed:
        before = dict(vars(api))
        _parse(api, data)
        _parsed[key] = {name: value for name, value in vars(api).items() if before.get(name) is not value}
    vars(api).update(_parsed[key])


OpenAPI._parse_api = _parse_once
load_plugins()
for line in sys.stdin:
    done = CliRunner().invoke(main, json.loads(line), prog_name="pulp")
    found = {"status": done.exit_code, "output": done.stdout, "errors": done.stderr, "defect": repr(done.exception)}
    print(json.dumps(found), flush=True)
