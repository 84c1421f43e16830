"""What readers are told to type: every ``airflow`` command parses, every ``make`` command and setting exists."""

from __future__ import annotations

import argparse
import configparser
import json
import re
import shlex
from collections.abc import Iterator
from functools import cache
from pathlib import Path

import pytest

from support.documents import DOCS, code_blocks

ROOT = Path(__file__).parents[2]
PAGES = sorted(str(path.relative_to(DOCS)) for path in DOCS.rglob("*.md"))
SHELL = frozenset({"bash", "text"})
_COMMAND = re.compile(r"(?:[A-Z_]+=\S* )*(?:\S*/)?(?P<program>airflow|make) ")
#: What stands in the synopsis of a command for an argument.
_PLACEHOLDER = re.compile(r"\[?\b(NAME|NUMBER|SOURCE|TARGET|RUN_ID|DIGEST|FORMAT|FILE)\b\]?")


def commands(page: str) -> Iterator[tuple[str, list[str]]]:
    """Program and arguments of each command line in a page's blocks, without the settings before it."""
    for block in code_blocks(page):
        if block.language in SHELL:
            for line in block.text.replace("\\\n", " ").splitlines():
                if found := _COMMAND.match(line):
                    yield found["program"], shlex.split(line[found.end() :], comments=True)


def typed(program: str) -> list[tuple[str, list[str]]]:
    """Page and arguments of every use of ``program``."""
    return [(page, arguments) for page in PAGES for name, arguments in commands(page) if name == program]


@cache
def parser() -> argparse.ArgumentParser:
    from airflow.cli.cli_parser import get_parser

    return get_parser()


@pytest.mark.parametrize(("page", "arguments"), typed("airflow"), ids=lambda value: str(value)[:60])
def test_every_airflow_command_is_understood(page: str, arguments: list[str]) -> None:
    assert callable(parser().parse_args(arguments).func), page


def synopses() -> list[str]:
    page = (DOCS / "reference" / "cli.md").read_text(encoding="utf-8")
    return re.findall(r"^\| `airflow ([^`]+)`", page, re.MULTILINE)


@pytest.mark.parametrize("synopsis", synopses())
def test_every_synopsis_is_understood(synopsis: str) -> None:
    values = {
        "NAME": "hello-world",
        "NUMBER": "1",
        "SOURCE": "hello",
        "TARGET": "world",
        "RUN_ID": "manual__1",
        "DIGEST": "sha256:0",
        "FORMAT": "regsync",
        "FILE": "regsync.yaml",
    }
    command = _PLACEHOLDER.sub(lambda match: values[match[1]], synopsis)
    assert callable(parser().parse_args(shlex.split(command)).func)


@pytest.mark.parametrize(("page", "arguments"), typed("make"), ids=lambda value: str(value)[:60])
def test_every_make_command_and_variable_exists(page: str, arguments: list[str]) -> None:
    makefile = (ROOT / "Makefile").read_text(encoding="utf-8")
    # Of each target, the variables that its line of help names.
    targets = {
        name: {"PYTHON", *re.findall(r"\b([A-Z_]+)=", text)}
        for name, text in re.findall(r"^([a-z-]+):(.*)$", makefile, re.MULTILINE)
    }
    known = {"PYTHON"}.union(*(targets.get(argument, ()) for argument in arguments))
    for argument in arguments:
        name, is_variable, _ = argument.partition("=")
        assert name in (known if is_variable else targets), page


def ini_blocks() -> list[tuple[str, str]]:
    return [(page, block.text) for page in PAGES for block in code_blocks(page) if block.language == "ini"]


#: Of a provider that not everybody installs; ``integration/test_lineage`` sets them.
OF_OTHER_PROVIDERS = {("openlineage", "transport"), ("openlineage", "execute_in_thread")}


@pytest.mark.parametrize(("page", "block"), ini_blocks(), ids=lambda value: str(value)[:40])
def test_every_setting_that_is_shown_exists_and_can_be_read(page: str, block: str) -> None:
    from airflow.configuration import conf

    shown = configparser.ConfigParser()
    shown.read_string(block)
    for section in shown.sections():
        for option in shown.options(section):
            assert shown.get(section, option), page
            exists = (section, option) in OF_OTHER_PROVIDERS or conf.get(section, option, fallback=None) is not None
            assert exists, f"{page}: [{section}] {option}"


def test_the_refusal_that_is_shown_is_the_one_that_is_given() -> None:
    from registry_sync.domain.references import RegistryUrl
    from registry_sync.errors import RealmRefused
    from registry_sync.oci.auth.credentials import RealmPolicy
    from registry_sync.oci.http.origins import Origin, Target

    own = Origin.of(RegistryUrl.parse("https://registry.example"))
    policy = RealmPolicy(own, frozenset(), allow_insecure=False)
    with pytest.raises(RealmRefused) as refused:
        policy.check("https://login.example/token", Target(own, "/v2/"), has_secret=True)
    shown = next(block.text for block in code_blocks("how-to/connect-to-a-registry.md") if "RealmRefused" in block.text)
    assert shown.split() == f"RealmRefused: {refused.value}".split()


def test_the_connection_in_the_environment_is_read_as_it_is_meant() -> None:
    from airflow.models import Connection

    from registry_sync.hooks.connection import read_connection

    block = next(
        block.text for block in code_blocks("how-to/connect-to-a-registry.md") if "AIRFLOW_CONN_QUAY" in block.text
    )
    document = shlex.split(block)[1].partition("=")[2]
    settings = read_connection("quay", Connection(conn_id="quay", **json.loads(document)))
    assert str(settings.registry) == "https://quay.io"
    assert settings.credentials.has_password
    assert settings.unknown_extra == ()
