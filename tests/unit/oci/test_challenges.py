"""``WWW-Authenticate`` is read by its grammar, joined headers included, and never in two ways."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from registry_sync.errors import ChallengeInvalid, ProtocolError
from registry_sync.oci.auth.challenges import Challenge, parse_challenges


@pytest.mark.parametrize(
    ("header", "expected"),
    [
        (
            'Bearer realm="https://auth.example/token",service="registry.example",scope="repository:a/b:pull"',
            [
                Challenge(
                    "bearer",
                    {
                        "realm": "https://auth.example/token",
                        "service": "registry.example",
                        "scope": "repository:a/b:pull",
                    },
                )
            ],
        ),
        (
            'Negotiate, Basic realm="a, b", Bearer realm="https://x/token"',
            [
                Challenge("negotiate"),
                Challenge("basic", {"realm": "a, b"}),
                Challenge("bearer", {"realm": "https://x/token"}),
            ],
        ),
        ("BEARER Realm=https://x/token,Service=s", [Challenge("bearer", {"realm": "https://x/token", "service": "s"})]),
        ('Bearer realm = "x" , scope=""', [Challenge("bearer", {"realm": "x", "scope": ""})]),
        (
            'Bearer realm="https://x/token?tenant=1&a=b"',
            [Challenge("bearer", {"realm": "https://x/token?tenant=1&a=b"})],
        ),
        (r'Basic realm="say \"hi\" \\ there"', [Challenge("basic", {"realm": r'say "hi" \ there'})]),
        (
            "NTLM TlRMTVNTUAAC==, Basic realm=x",
            [Challenge("ntlm"), Challenge("basic", {"realm": "x"})],
        ),
        ("Negotiate abc123, Basic realm=x", [Challenge("negotiate"), Challenge("basic", {"realm": "x"})]),
        ("", []),
        (" , ,", []),
        (
            ", Basic realm=x,, ,Bearer realm=y",
            [Challenge("basic", {"realm": "x"}), Challenge("bearer", {"realm": "y"})],
        ),
        ("Digest", [Challenge("digest")]),
    ],
)
def test_a2_04_every_form_of_the_grammar_is_read(header: str, expected: list[Challenge]) -> None:
    assert list(parse_challenges(header)) == expected


def test_a2_04_a_quotation_mark_that_is_never_closed_is_refused() -> None:
    with pytest.raises(ChallengeInvalid, match="never closed"):
        parse_challenges('Bearer realm="https://x/token, service=s')


@pytest.mark.parametrize(
    ("header", "said"),
    [
        ('Bearer realm="https://x/token" surprise', "unexpected text after a value"),
        ('Bearer realm=good "surprise"', "unexpected text after a value"),
    ],
)
def test_a2_04_text_between_parameters_is_refused(header: str, said: str) -> None:
    with pytest.raises(ChallengeInvalid, match=said):
        parse_challenges(header)


@pytest.mark.parametrize(
    "header",
    ['Bearer realm="good",realm="evil"', 'Bearer realm="good",Realm="evil"', 'Basic a=1, Bearer scope="a",scope="b"'],
)
def test_a2_05_a_parameter_that_appears_twice_is_refused(header: str) -> None:
    with pytest.raises(ChallengeInvalid, match="twice"):
        parse_challenges(header)


def test_a2_07_a_header_of_more_than_8_kib_is_refused() -> None:
    with pytest.raises(ProtocolError, match="longer than"):
        parse_challenges(f'Basic realm="{"x" * 9000}"')


def test_a2_07_a_header_of_just_8_kib_is_read() -> None:
    (challenge,) = parse_challenges('Basic realm="' + "x" * (8192 - 14) + '"')
    assert len(challenge.realm) == 8192 - 14


def test_a2_07_more_than_sixteen_challenges_are_refused() -> None:
    assert len(parse_challenges(", ".join(f"S{number}" for number in range(16)))) == 16
    with pytest.raises(ProtocolError, match="challenges"):
        parse_challenges(", ".join(f"S{number}" for number in range(17)))


@given(st.text(max_size=300))
def test_any_text_gives_challenges_or_its_own_error(header: str) -> None:
    try:
        challenges = parse_challenges(header)
    except (ChallengeInvalid, ProtocolError):
        return
    assert all(challenge.scheme == challenge.scheme.lower() for challenge in challenges)


_names = st.text("abcdefghijklmnopqrstuvwxyz", min_size=1, max_size=8)
_values = st.text(st.characters(min_codepoint=0x20, max_codepoint=0x7E), max_size=30)
_challenges = st.lists(
    st.tuples(_names, st.dictionaries(_names, _values, min_size=1, max_size=4)), min_size=1, max_size=5
)


@given(_challenges)
def test_what_is_written_quoted_is_read_back_the_same(written: list[tuple[str, dict[str, str]]]) -> None:
    def quoted(value: str) -> str:
        return '"' + value.replace("\\", "\\\\").replace('"', '\\"') + '"'

    header = ", ".join(
        f"{scheme} " + ", ".join(f"{name}={quoted(value)}" for name, value in parameters.items())
        for scheme, parameters in written
    )
    assert [(challenge.scheme, dict(challenge.parameters)) for challenge in parse_challenges(header)] == written
