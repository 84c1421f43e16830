"""Scopes of tokens (distribution's token scope documentation): ``type:name:actions``, several separated by blanks."""

from __future__ import annotations

from collections.abc import Iterable

from registry_sync.domain.references import RepositoryName

PULL = "pull"


def pull_scope(repository: RepositoryName) -> str:
    """What reading ``repository`` needs."""
    return f"repository:{repository}:{PULL}"


def split_scope(scope: str) -> tuple[str, str, frozenset[str]]:
    """Type, name and actions, read from the right because names may contain colons. Raises :class:`ValueError`."""
    rest, colon, actions = scope.rpartition(":")
    kind, second_colon, name = rest.partition(":")
    if not colon or not second_colon or not kind or not name:
        raise ValueError(f"{scope[:80]!r} is not a scope")
    return kind, name, frozenset(action for action in actions.split(",") if action)


def canonical_scopes(scopes: Iterable[str]) -> tuple[str, ...]:
    """The same scopes in one spelling: actions of one name merged and sorted, ``*`` in place of all.

    What is no scope is kept as it is.
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


def scopes_to_ask(offered: str, wanted: str | None) -> tuple[str, ...]:
    """What to ask a token service for: the registry's own spelling first where it means ``wanted``, then ``wanted``.

    ``offered`` is the challenge's scope, which counts for nothing else: a registry that asks for more than to read
    this repository does not get it. ``wanted`` None asks for no scope.
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
