"""The command ``fleet discover``: a registry's repositories as mirrors in a file, a step of its own beside syncs."""

from __future__ import annotations

import sys
from argparse import Namespace
from pathlib import Path

from registry_sync.cli.command_context import errors_shown, read_connections
from registry_sync.cli.fleet_commands import write_whole
from registry_sync.cli.run_progress import say
from registry_sync.domain.quantities import format_count
from registry_sync.domain.references import RepositoryName
from registry_sync.domain.remote import RemoteSpec
from registry_sync.errors import ConfigurationError
from registry_sync.fleet.discovery import DiscoveryRule, discovered

_SHOWN = 20


def discover(args: Namespace) -> None:
    """Adds a mirror for each repository of a registry that the file lacks; says what is gone upstream, which stays."""
    with errors_shown():
        rule = DiscoveryRule(
            tuple(args.include or ("**",)), tuple(args.exclude or ()), args.repository, args.group, args.max
        )
        remote = RemoteSpec.parse("discover", args.url, "any", conn_id=args.conn_id)
        path = Path(args.output).expanduser()
        try:
            present = path.read_text(encoding="utf-8") if path.exists() else ""
        except (OSError, UnicodeDecodeError) as problem:
            raise ConfigurationError(f"{str(path)!r} cannot be read: {problem}") from None
        registry = remote.url.netloc if remote.url.scheme == "https" else f"http://{remote.url.netloc}"
        made = discovered(present, path.name, registry, _listed(remote), rule)
        if made.text != present:
            write_whole(path, made.text)
    for what, sources in (("added", made.added), ("gone upstream, its mirror stays", made.gone)):
        for source in sources[:_SHOWN]:
            say(f"{source}: {what}")
        if len(sources) > _SHOWN:
            say(f"and {len(sources) - _SHOWN:,} more: {what}")
    say(f"{format_count(len(made.added), 'mirror')} added to {path}, {len(made.gone):,} gone upstream")
    if made.gone:
        sys.exit(1)


def _listed(remote: RemoteSpec) -> tuple[RepositoryName, ...]:
    """All repositories of the registry."""
    from registry_sync.hooks.clients import open_client

    read_connections()
    with open_client(remote) as client:
        return client.list_repositories()
