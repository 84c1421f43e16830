"""Mirrors for what a registry lists: globs, names, and a file that only grows."""

from __future__ import annotations

import pytest

from registry_sync.domain.references import RepositoryName
from registry_sync.errors import ConfigurationError
from registry_sync.fleet.discovery import DiscoveryRule, discovered

NAMES = [RepositoryName(name) for name in ("app", "infra/db", "infra/net/proxy", "infra/web", "team/a")]


@pytest.mark.parametrize(
    ("include", "exclude", "selected"),
    [
        (("**",), (), ["app", "infra/db", "infra/net/proxy", "infra/web", "team/a"]),
        (("*",), (), ["app"]),
        (("infra/*",), (), ["infra/db", "infra/web"]),
        (("infra/**",), ("**/proxy", "infra/w?b"), ["infra/db"]),
        (("team/a", "app"), (), ["app", "team/a"]),
    ],
)
def test_globs_select_within_a_part_and_across(
    include: tuple[str, ...], exclude: tuple[str, ...], selected: list[str]
) -> None:
    assert DiscoveryRule(include, exclude).selected(NAMES) == selected


def test_a_file_grows_and_keeps_what_was_written_and_what_is_gone() -> None:
    rule = DiscoveryRule(("infra/*",), group="base", repository="mirror/{last}")
    first = discovered("", "d.yaml", "reg.example", NAMES, rule)
    assert first.added == ("reg.example/infra/db", "reg.example/infra/web")
    assert "- {repository: mirror/db, source: 'reg.example/infra/db', group: base}\n" in first.text
    edited = first.text.replace("group: base}", "group: base, tags: {include: [latest]}} # ours")
    names = [*NAMES[2:], RepositoryName("infra/new")]
    second = discovered(edited, "d.yaml", "reg.example", names, rule)
    assert second.text.startswith(edited)
    assert (second.added, second.gone) == (("reg.example/infra/new",), ("reg.example/infra/db",))
    assert discovered(second.text, "d.yaml", "reg.example", names, rule).text == second.text


@pytest.mark.parametrize(
    ("present", "rule", "said"),
    [
        ("", DiscoveryRule(most=2), "5 repositories match .*, more than 2: narrow it"),
        ("", DiscoveryRule(("none/*",)), "lists no repository that matches none/"),
        ("", DiscoveryRule(repository="fixed"), "has to have {name} or {last}"),
        ("", DiscoveryRule(repository="{x}"), "has to have {name} or {last}"),
        ("", DiscoveryRule(("[a]",)), "is no glob of repositories"),
        ("", DiscoveryRule(("*" + "a*" * 9,)), "at most 8 of"),
        ("mirrors: {}", DiscoveryRule(), "mirrors is no list"),
        ("a: [", DiscoveryRule(), "d.yaml:2: this is not YAML"),
        ("mirrors: []\n", DiscoveryRule(), "d.yaml:2: this is not YAML|no mirror can be added at the end"),
        ("mirrors:\n- {source: x/app}\ngroups: {}\n", DiscoveryRule(("team/*",)), "not YAML|no mirror can be added"),
        ("mirrors:\n- {source: other/app}\n", DiscoveryRule(("app",)), "'app' would be filled from reg.example/app"),
    ],
)
def test_what_cannot_be_written_is_an_error(present: str, rule: DiscoveryRule, said: str) -> None:
    with pytest.raises(ConfigurationError, match=said):
        discovered(present, "d.yaml", "reg.example", NAMES, rule)
