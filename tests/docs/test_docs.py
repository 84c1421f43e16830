"""The documentation held against the code: what exists has its line, and what is linked or included is there."""

from __future__ import annotations

import ast
import inspect
import re
from collections.abc import Iterator
from datetime import date
from importlib import import_module
from pathlib import Path
from typing import Any

import pytest
from packaging.version import Version

from registry_sync import __version__, errors, provider
from registry_sync.db.schema import VERSION_TABLE
from registry_sync.db.tables import metadata
from registry_sync.domain.known_registries import DIGEST_APIS, KNOWN_REGISTRIES, DigestAccess
from registry_sync.domain.manifest_documents import DEFAULT_LIMITS
from registry_sync.errors import PaginationError, RegistryError, RegistrySyncError
from registry_sync.hooks.connection import IGNORED_EXTRA, KNOWN_EXTRA
from registry_sync.oci.http.transport import MAX_REDIRECTS
from registry_sync.oci.tags import MAX_PAGES, MAX_TAGS
from registry_sync.sync.verdicts import Verdict, verdict

ROOT = Path(__file__).parents[2]
DOCS = ROOT / "docs"
PACKAGE = ROOT / "plugins" / "registry_sync"
PAGES = [
    *(ROOT / name for name in ("README.md", "CHANGELOG.md", "CONTRIBUTING.md", "SECURITY.md")),
    *sorted(DOCS.rglob("*.md")),
]
_FENCE = re.compile(r"^```.*?^```$", re.MULTILINE | re.DOTALL)
_LINK = re.compile(r"!?\[[^\]]*\]\(([^)\s]+)\)")
_INCLUDE = re.compile(
    r'<!-- include: (?P<path>\S+?)(?: from "(?P<start>[^"]+)")? -->\n```\w+\n(?P<text>.*?)^```$',
    re.MULTILINE | re.DOTALL,
)


def text(path: str) -> str:
    return (DOCS / path).read_text(encoding="utf-8")


def rows(page: str) -> dict[str, list[str]]:
    """The cells of every table row, by each name in code spans of the first cell."""
    found: dict[str, list[str]] = {}
    for line in page.splitlines():
        if line.startswith("|"):
            cells = [cell.strip() for cell in line.strip("|").split("|")]
            found.update(dict.fromkeys(re.findall(r"`([^`]+)`", cells[0]), cells))
    return found


def section(page: str, title: str) -> str:
    """What stands below a second-level title, up to the next."""
    found = re.search(rf"^## {re.escape(title)}$(.*?)(?=^## |\Z)", page, re.MULTILINE | re.DOTALL)
    assert found is not None, f"there is no section {title}"
    return found[1]


def error_types() -> list[type[RegistrySyncError]]:
    found = inspect.getmembers(errors, inspect.isclass)
    return [kind for _, kind in found if issubclass(kind, RegistrySyncError)]


# -- links, includes, order ---------------------------------------------------------------------------------------


def anchors(path: Path) -> set[str]:
    """The anchors that a page's titles have on code hosts."""
    titles = re.findall(r"^#+ (.+)$", _FENCE.sub("", path.read_text(encoding="utf-8")), re.MULTILINE)
    return {re.sub(r"[^\w\- ]", "", title.lower()).replace(" ", "-") for title in titles}


def links(path: Path) -> Iterator[tuple[Path, str]]:
    """The files of this project that a page links to, and the anchors in them."""
    for target in _LINK.findall(_FENCE.sub("", path.read_text(encoding="utf-8"))):
        if "://" not in target:
            name, _, anchor = target.partition("#")
            yield (path.parent / name).resolve() if name else path, anchor


@pytest.mark.parametrize("page", PAGES, ids=lambda page: str(page.relative_to(ROOT)))
def test_every_link_leads_somewhere(page: Path) -> None:
    for target, anchor in links(page):
        assert target.exists(), f"{page.name} links to {target}"
        assert not anchor or anchor in anchors(target), f"{page.name} links to #{anchor} of {target.name}"


def test_every_page_can_be_reached_from_the_readme() -> None:
    reached, waiting = set(), [ROOT / "README.md"]
    while waiting:
        page = waiting.pop()
        if page not in reached:
            reached.add(page)
            waiting += [target for target, _ in links(page) if target.suffix == ".md" and target.exists()]
    assert set(PAGES) - reached == set()


def test_every_picture_is_shown() -> None:
    shown = {target for page in PAGES for target, _ in links(page)}
    assert set((DOCS / "images").iterdir()) - shown == set()


@pytest.mark.parametrize("page", PAGES, ids=lambda page: str(page.relative_to(ROOT)))
def test_an_included_block_is_what_its_file_says(page: Path) -> None:
    for found in _INCLUDE.finditer(page.read_text(encoding="utf-8")):
        whole = (ROOT / found["path"]).read_text(encoding="utf-8")
        assert found["text"] == whole[whole.index(found["start"]) if found["start"] else 0 :]


def test_every_example_is_included_somewhere() -> None:
    included = {found["path"] for page in PAGES for found in _INCLUDE.finditer(page.read_text(encoding="utf-8"))}
    assert {str(path.relative_to(ROOT)) for path in (DOCS / "examples").glob("*.py")} - included == set()


def test_the_readme_fits_on_one_screen() -> None:
    assert len((ROOT / "README.md").read_text(encoding="utf-8").splitlines()) <= 72


def test_the_release_has_one_number() -> None:
    told = re.search(r'^version = "(.+)"$', (ROOT / "pyproject.toml").read_text(encoding="utf-8"), re.MULTILINE)
    assert told is not None
    assert told[1] == __version__


def test_contributors_are_sent_to_files_that_are_there() -> None:
    named = re.findall(r"`([\w./-]+(?:/|\.py|\.md|\.toml))`", (ROOT / "CONTRIBUTING.md").read_text(encoding="utf-8"))
    made = {".local/", "routes.py", "documents.py"}
    assert len(named) > 20
    there = (ROOT, PACKAGE, DOCS / "reference")
    assert [name for name in named if name not in made and not any((root / name).exists() for root in there)] == []


def changelog() -> tuple[str, list[tuple[Version, date]]]:
    """What stands under Unreleased, and the releases below it."""
    page = (ROOT / "CHANGELOG.md").read_text(encoding="utf-8")
    titles = re.findall(r"^## (.+)$", page, re.MULTILINE)
    assert titles[0] == "Unreleased"
    given = [re.fullmatch(r"(\d+\.\d+\.\d+) \((\d{4}-\d\d-\d\d)\)", title) for title in titles[1:]]
    assert all(given), titles
    releases = [(Version(found[1]), date.fromisoformat(found[2])) for found in given if found is not None]
    return section(page, "Unreleased").strip(), releases


def test_the_changelog_has_its_releases_in_order_below_what_is_unreleased() -> None:
    _, releases = changelog()
    assert releases == sorted(releases, reverse=True)
    assert len({version for version, _ in releases}) == len(releases) > 0


def test_the_number_is_that_of_the_newest_release_or_of_what_comes_after_it() -> None:
    """``make release`` sets the one, the commit after it the other."""
    unreleased, releases = changelog()
    number, (newest, _) = Version(__version__), releases[0]
    assert number.is_devrelease == bool(unreleased)
    assert number > newest if unreleased else number == newest


def test_every_setting_came_with_a_release_or_comes_with_the_next() -> None:
    _, releases = changelog()
    known = {str(version) for version, _ in releases} | {Version(__version__).base_version}
    assert {setting["version_added"] for setting in provider.SETTINGS.values()} <= known


# -- what exists has its line -------------------------------------------------------------------------------------


@pytest.mark.parametrize("name", provider.SETTINGS)
def test_every_setting_has_a_line_with_its_default(name: str) -> None:
    cells = rows(text("reference/settings.md"))[name]
    assert provider.SETTINGS[name]["default"] in cells[1]


@pytest.mark.parametrize(
    "name",
    sorted({"host", "schema", "port", "login", "password", *provider.CONNECTION_FIELDS, *KNOWN_EXTRA}),
)
def test_every_field_of_the_connection_has_a_line(name: str) -> None:
    assert name in rows(text("reference/connection.md"))


def test_names_of_httphook_that_are_ignored_are_reported() -> None:
    page = text("reference/connection.md")
    assert [name for name in sorted(IGNORED_EXTRA) if f"`{name}`" not in page] == []


@pytest.mark.parametrize("kind", error_types(), ids=lambda kind: kind.__name__)
def test_every_error_has_its_meaning_and_what_to_do(kind: type[RegistrySyncError]) -> None:
    assert kind.__name__ in rows(text("reference/errors.md"))
    assert kind.__name__ in rows(text("how-to/when-something-fails.md"))


@pytest.mark.parametrize("kind", error_types(), ids=lambda kind: kind.__name__)
def test_what_an_error_is_said_to_lead_to_is_what_a_sync_does(kind: type[RegistrySyncError]) -> None:
    told = rows(text("reference/errors.md"))[kind.__name__][2]
    error = kind("message", host="registry") if issubclass(kind, RegistryError) else kind("message")
    decided = {Verdict.FATAL: "fails", Verdict.HOLD: "holds", Verdict.RETRY: "retried"}
    expected = "retried" if error.is_temporary else decided[verdict(error, is_last_try=False)]
    if kind is PaginationError:
        expected = "fails"  # only lists of tags raise it, and they are whole or an error
    assert not told or told.startswith(expected)


def test_the_bounds_are_those_of_the_code() -> None:
    told = section(text("reference/errors.md"), "Bounds")
    for number in (DEFAULT_LIMITS.layers, DEFAULT_LIMITS.manifests_per_reference, MAX_TAGS, MAX_PAGES):
        assert f"{number:,}" in told
    assert f"| {DEFAULT_LIMITS.depth} |" in told
    assert f"| {DEFAULT_LIMITS.manifest_bytes // 1024**2} MiB |" in told
    assert f"| {DEFAULT_LIMITS.blob_bytes // 1024**4} TiB |" in told
    assert f"| {MAX_REDIRECTS} |" in told
    assert DEFAULT_LIMITS.entries == DEFAULT_LIMITS.layers


def test_every_parameter_of_the_dag_has_a_line_with_its_title_and_no_other_has() -> None:
    tree = ast.parse((ROOT / "dags" / "registry_sync.py").read_text(encoding="utf-8"))
    assigned = next(
        node.value for node in tree.body if isinstance(node, ast.Assign) and ast.unparse(node.targets[0]) == "PARAMS"
    )
    assert isinstance(assigned, ast.Dict)
    told = rows(text("reference/dag-parameters.md"))
    names = []
    for key, call in zip(assigned.keys, assigned.values, strict=True):
        assert isinstance(key, ast.Constant)
        assert isinstance(call, ast.Call)
        names.append(key.value)
        title = next(ast.literal_eval(keyword.value) for keyword in call.keywords if keyword.arg == "title")
        assert told[str(key.value)][1] == title
    assert list(told) == names


def test_every_known_registry_has_a_line_with_all_that_is_known_of_it() -> None:
    page = (DOCS / "reference" / "known-registries.md").read_text().partition("## Lists of digests")[0]
    lines = {line.split("|")[1].strip(): line for line in page.splitlines() if line.startswith("| ") and "`" in line}
    assert lines.keys() == {known.name for known in KNOWN_REGISTRIES}
    for known in KNOWN_REGISTRIES:
        facts = {
            known.host, *known.aliases, *known.websites, *known.token_hosts, known.credentials_path,
            known.credential_helper, known.login_service, known.login_region,
            known.digest_list.value if known.digest_list else None,
            *(f"<{name}>" for name, _ in known.placeholders if name not in ("account", "region")),
        }  # fmt: skip
        facts |= {f"{known.official_namespace}/"} if known.official_namespace else set()
        said = {f"`{fact}`" for fact in facts if fact}
        assert [fact for fact in said if fact not in lines[known.name]] == []
        assert ("is a cache" in lines[known.name]) == known.is_cache


def test_every_list_of_digests_has_a_line_with_its_path_and_who_is_asked_without_a_setting() -> None:
    page = (DOCS / "reference" / "known-registries.md").read_text().partition("## Lists of digests")[2]
    lines = {line.split("|")[1].strip(" `"): line for line in page.splitlines() if line.startswith("| `")}
    lines.pop("digest_list")
    assert lines.keys() == {source.value for source in DIGEST_APIS}
    by_host = {known.digest_list for known in KNOWN_REGISTRIES}
    for source, api in DIGEST_APIS.items():
        fixed = api.path.partition("?")[0].partition("{")[0]
        told = lines[source.value]
        assert f"{api.host or ''}{fixed}" in told
        assert ("| no: " in told) is (source not in by_host)
        assert ("name and password" in told) is (api.access is DigestAccess.BASIC)
        assert api.scope in told or api.access is not DigestAccess.CHALLENGE


def test_every_make_target_and_variable_has_a_line() -> None:
    makefile = (ROOT / "Makefile").read_text(encoding="utf-8")
    told = rows(text("reference/make.md"))
    assert [name for name in re.findall(r"^([a-z]+):.*##", makefile, re.MULTILINE) if f"make {name}" not in told] == []
    variables = re.search(r"^SYNC_VARIABLES := (.+)$", makefile, re.MULTILINE)
    assert variables is not None
    assert [name for name in (*variables[1].split(), "PYTHON") if name not in told] == []


def commands(entries: Any, prefix: str = "airflow") -> Iterator[str]:
    for entry in entries:
        name = f"{prefix} {entry.name}"
        if hasattr(entry, "subcommands"):
            yield from commands(entry.subcommands, name)
        else:
            yield name


def test_every_command_has_a_line() -> None:
    from registry_sync.cli import get_cli_commands

    told = list(rows(text("reference/cli.md")))
    assert [name for name in commands(get_cli_commands()) if not any(row.startswith(name) for row in told)] == []


@pytest.mark.parametrize("module", provider.OPERATOR_MODULES)
def test_every_operator_documents_its_parameters_and_template_fields(module: str) -> None:
    title = "".join(part.title() for part in module.rpartition(".")[2].split("_")) + "Operator"
    operator = getattr(import_module(module), title)
    told = section(text("reference/operators.md"), title)
    parameters = [name for name in inspect.signature(operator).parameters if name != "kwargs"]
    assert sorted(rows(told)) == sorted(parameters)
    fields = re.search(r"Template fields: ([^.]+)", told)
    assert fields is not None
    assert fields[1] == "all of these" or re.findall(r"`(\w+)`", fields[1]) == list(operator.template_fields)


def test_every_table_has_a_line() -> None:
    told = rows(text("reference/database.md"))
    assert [name for name in metadata.tables if name not in told] == []
    assert f"`{VERSION_TABLE}`" in text("reference/database.md")


def parts() -> list[str]:
    """The folders and single modules of the package, as pages name them."""
    entries = [path for path in PACKAGE.iterdir() if not path.name.startswith("_") and path.name != "py.typed"]
    return sorted(f"{path.name}/" if path.is_dir() else path.name for path in entries)


@pytest.mark.parametrize("page", ["explanation/architecture.md", "reference/packages.md"])
@pytest.mark.parametrize("part", parts())
def test_every_part_of_the_package_is_described(page: str, part: str) -> None:
    assert f"`{part}`" in text(page)
