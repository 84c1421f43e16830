"""The challenges of ``WWW-Authenticate`` (RFC 9110 section 11.6.1) and the scopes of tokens.

A scope is ``type:name:actions`` (distribution's token scope documentation); several are separated by blanks.

Repeated header lines arrive joined by commas, which also separate parameters and challenges; the grammar distinguishes
them. Unknown schemes are parsed and ignored.
"""

from __future__ import annotations

import re
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field

from registry_sync.domain.references import RepositoryName
from registry_sync.errors import ChallengeInvalid, ProtocolError

PULL = "pull"


def repository_scope(repository: RepositoryName, actions: str = PULL) -> str:
    """The scope for ``actions`` on ``repository``, by default to read it."""
    return f"repository:{repository}:{actions}"


def split_scope(scope: str) -> tuple[str, str, frozenset[str]]:
    """Type, name and actions, read from the right because names may contain colons. Raises :class:`ValueError`."""
    rest, colon, actions = scope.rpartition(":")
    kind, second_colon, name = rest.partition(":")
    if not colon or not second_colon or not kind or not name:
        raise ValueError(f"{scope[:80]!r} is not a scope")
    return kind, name, frozenset(action for action in actions.split(",") if action)


#: What a token has to allow for the list of repositories (Docker's token specification, "Resource type").
CATALOG_SCOPE = "registry:catalog:*"


def canonical_scopes(scopes: Iterable[str]) -> tuple[str, ...]:
    """The scopes in canonical form: actions of one name merged and sorted, ``*`` in place of all.

    A text that is no scope is kept unchanged.
    """
    merged: dict[tuple[str, str], set[str]] = {}
    opaque = set()
    for scope in scopes:
        try:
            kind, name, actions = split_scope(scope)
        except ValueError:
            opaque.add(scope)
            continue
        merged.setdefault((kind, name), set()).update(actions)
    readable = (
        f"{kind}:{name}:{'*' if '*' in actions else ','.join(sorted(actions))}"
        for (kind, name), actions in merged.items()
    )
    return tuple(sorted({*readable, *opaque}))


def scopes_to_request(offered: str, wanted: str | None) -> tuple[str, ...]:
    """The scopes of a token request: first the registry's own spelling of ``wanted``, then ``wanted``.

    ``offered`` is the challenge's scope; parts of it beyond ``wanted`` are ignored, so that a registry cannot request
    more than reading this repository. ``wanted`` None requests no scope.
    """
    if wanted is None:
        return ()
    wanted_kind, wanted_name, wanted_actions = split_scope(wanted)
    first = []
    for scope in offered.split():
        try:
            kind, name, actions = split_scope(scope)
        except ValueError:
            continue
        if kind.partition("(")[0] == wanted_kind and name == wanted_name and actions and actions <= wanted_actions:
            first.append(scope)
    return tuple(dict.fromkeys((*first, wanted)))


MAX_HEADER_BYTES = 8 * 1024
MAX_CHALLENGES = 16
_TOKEN = re.compile(r"[!#$%&'*+.^_`|~0-9A-Za-z-]+")
_TOKEN68 = re.compile(r"[A-Za-z0-9._~+/-]+=*(?=[ \t]*(?:,|$))")
_SPACE = re.compile(r"[ \t]*")
_SEPARATORS = re.compile(r"[ \t,]*")
_QUOTED = re.compile(r'"((?:[^"\\]|\\.)*)"', re.DOTALL)


@dataclass(frozen=True)
class Challenge:
    """One challenge: ``scheme`` and the names of ``parameters`` in lower case; no parameters for a token68."""

    scheme: str
    parameters: Mapping[str, str] = field(default_factory=dict)

    @property
    def realm(self) -> str:
        """The realm, empty when absent."""
        return self.parameters.get("realm", "")

    @property
    def service(self) -> str | None:
        """The service that the token is for, None when the challenge does not say."""
        return self.parameters.get("service")

    @property
    def scope(self) -> str:
        """Scopes that the registry requests, separated by blanks; may be empty."""
        return self.parameters.get("scope", "")

    @property
    def is_about_scope(self) -> bool:
        """Whether the token is valid and its scope is insufficient (RFC 6750 section 3.1)."""
        return self.parameters.get("error") == "insufficient_scope"


def parse_challenges(header: str) -> tuple[Challenge, ...]:
    """The challenges in their order.

    Raises :class:`ChallengeInvalid` for a value outside the grammar and for a repeated parameter, which is ambiguous;
    :class:`ProtocolError` for a header that is too long.
    """
    if len(header) > MAX_HEADER_BYTES:
        raise ProtocolError(f"a WWW-Authenticate header is longer than {MAX_HEADER_BYTES} bytes")
    challenges: list[Challenge] = []
    position = _end(_SEPARATORS, header, 0)
    while position < len(header):
        if len(challenges) == MAX_CHALLENGES:
            raise ProtocolError(f"a WWW-Authenticate header has more than {MAX_CHALLENGES} challenges")
        scheme, position = _read(_TOKEN, header, position)
        parameters, position = _parameters(header, position)
        challenges.append(Challenge(scheme.lower(), parameters))
        position = _end(_SEPARATORS, header, position)
    return tuple(challenges)


def _parameters(header: str, position: int) -> tuple[dict[str, str], int]:
    """The parameters from ``position`` on, and the position of the next challenge."""
    parameters: dict[str, str] = {}
    start = _end(_SPACE, header, position)
    if start == position:
        return parameters, position
    if (token68 := _TOKEN68.match(header, start)) and not _is_parameter(header, start):
        return parameters, token68.end()
    position = start
    while position < len(header) and _is_parameter(header, position):
        name, position = _read(_TOKEN, header, position)
        position = _end(_SPACE, header, _end(_SPACE, header, position) + 1)
        value, position = _value(header, position)
        if name.lower() in parameters:
            raise ChallengeInvalid(f"a challenge names its {name.lower()[:40]!r} twice")
        parameters[name.lower()] = value
        after = _end(_SPACE, header, position)
        if after < len(header) and header[after] != ",":
            raise ChallengeInvalid("a challenge has unexpected text after a value")
        position = _end(_SEPARATORS, header, after)
    return parameters, position


def _is_parameter(header: str, position: int) -> bool:
    """Whether ``token = value`` starts here, and not the scheme of another challenge."""
    name = _TOKEN.match(header, position)
    if name is None:
        return False
    equals = _end(_SPACE, header, name.end())
    if header[equals : equals + 1] != "=":
        return False
    value = _end(_SPACE, header, equals + 1)
    return header[value : value + 1] == '"' or _TOKEN.match(header, value) is not None


def _value(header: str, position: int) -> tuple[str, int]:
    if header[position : position + 1] == '"':
        quoted = _QUOTED.match(header, position)
        if quoted is None:
            raise ChallengeInvalid("a challenge has a quotation mark that is never closed")
        return re.sub(r"\\(.)", r"\1", quoted[1], flags=re.DOTALL), quoted.end()
    # Some registries omit the quotation marks around URLs; the value then ends at the next comma or blank.
    unquoted = re.compile(r"[^\s,\"]+").match(header, position)
    if unquoted is None:
        raise ChallengeInvalid("a challenge has a parameter without a value")
    return unquoted[0], unquoted.end()


def _read(pattern: re.Pattern[str], header: str, position: int) -> tuple[str, int]:
    match = pattern.match(header, position)
    if match is None:
        raise ChallengeInvalid(f"a challenge cannot be read at its character {position}")
    return match[0], match.end()


def _end(pattern: re.Pattern[str], header: str, position: int) -> int:
    match = pattern.match(header, position)
    return position if match is None else match.end()
