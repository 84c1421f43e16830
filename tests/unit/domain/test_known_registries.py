"""The table of registries that are known by their hosts, and that nothing known of them stands anywhere else."""

from __future__ import annotations

import ast
from collections import Counter
from dataclasses import fields
from pathlib import Path

import pytest

import registry_sync
from registry_sync.domain.known_registries import (
    KNOWN_REGISTRIES,
    UNKNOWN,
    KnownRegistry,
    known_registry,
    registry_called,
)
from registry_sync.domain.references import RegistryUrl
from registry_sync.domain.remote import RemoteSpec
from registry_sync.errors import InvalidReference

PACKAGE = Path(registry_sync.__file__).parent
#: Texts of the connection form, which imports nothing; they only suggest what to type.
FORM = "provider.py"


def hosts_of(known: KnownRegistry) -> frozenset[str]:
    return (
        known.aliases | known.websites | known.token_hosts | ({known.host} if not known.placeholders else frozenset())
    )


def test_no_host_is_of_two_registries() -> None:
    hosts = Counter(host for known in KNOWN_REGISTRIES for host in (known.host, *known.aliases, *known.websites))
    assert [host for host, count in hosts.items() if count > 1] == []


@pytest.mark.parametrize("known", KNOWN_REGISTRIES, ids=lambda known: known.name)
def test_a_registry_is_found_by_its_hosts_and_its_aliases_become_its_own(known: KnownRegistry) -> None:
    if not known.placeholders:
        assert known_registry(known.host) is known
    for alias in known.aliases:
        assert registry_called(alias) is known
        assert RegistryUrl.parse(f"https://{alias}:5000").host == known.host
        assert known_registry(alias) is UNKNOWN, "an alias is written by people, and is no host of the API"
    for website in known.websites:
        with pytest.raises(InvalidReference, match=f"{known.name}'s website; its registry is https://{known.host}"):
            RegistryUrl.parse(website)


@pytest.mark.parametrize(
    ("url", "name", "page"),
    [
        ("https://docker.io", "alpine", "https://hub.docker.com/r/library/alpine"),
        ("https://quay.io", "libpod/alpine", "https://quay.io/repository/libpod/alpine"),
        ("https://registry.example:5000", "team/app", "https://registry.example:5000/v2/team/app/tags/list"),
    ],
)
def test_an_upstream_has_a_page_for_people_where_one_is_known(url: str, name: str, page: str) -> None:
    assert RemoteSpec.parse("a", url, name).upstream_page == page


AMAZON = [
    ("123456789012.dkr.ecr.eu-central-1.amazonaws.com", ("eu-central-1", "", "")),
    ("123456789012.dkr.ecr-fips.us-gov-west-1.amazonaws.com", ("us-gov-west-1", "-fips", "")),
    ("123456789012.dkr.ecr.cn-north-1.amazonaws.com.cn", ("cn-north-1", "", ".cn")),
]


@pytest.mark.parametrize(("host", "expected"), AMAZON)
def test_a_form_of_hosts_says_what_stands_in_it(host: str, expected: tuple[str, ...]) -> None:
    region, fips, suffix = expected
    parts = {"account": "123456789012", "region": region, "fips": fips, "suffix": suffix}
    assert known_registry(host).parts(host) == parts


@pytest.mark.parametrize(
    "host",
    [
        "registry.example",
        "registry-1.docker.io:8443",
        "xregistry-1.docker.io",
        "",
        "quay.io.example",
        "azurecr.io",
        "a.b.azurecr.io",
        "quay.io:8443",
        "12345.dkr.ecr.eu-central-1.amazonaws.com",
        "123456789012.dkr.ecr.eu-central-1.amazonaws.com.example",
    ],
)
def test_nothing_is_assumed_of_another_host(host: str) -> None:
    assert known_registry(host) is registry_called(host) is UNKNOWN
    plain = KnownRegistry("", "")
    assert all(getattr(UNKNOWN, field.name) == getattr(plain, field.name) for field in fields(plain))


@pytest.mark.slow
def test_what_is_known_of_a_registry_stands_in_the_table_alone() -> None:
    """As a rule, that is: text that people read may name a host."""
    facts = frozenset(host for known in KNOWN_REGISTRIES for host in hosts_of(known))
    elsewhere = []
    for path in sorted(PACKAGE.rglob("*.py")):
        if path.name not in ("known_registries.py", FORM):
            constants = (node.value for node in ast.walk(ast.parse(path.read_text())) if isinstance(node, ast.Constant))
            elsewhere += [f"{path.name}: {value}" for value in constants if isinstance(value, str) and value in facts]
    assert elsewhere == []
