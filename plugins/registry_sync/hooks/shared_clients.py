"""Clients of many remotes in one process, over one pool of connections and one cache of tokens for each account.

An account is a registry with the credentials and the TLS and proxy settings it is reached with. A task of many mirrors
would otherwise open its connections, and request its tokens, again for each of them.
"""

from __future__ import annotations

import threading
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import replace
from types import TracebackType
from typing import TYPE_CHECKING, Any

from registry_sync.hooks.clients import open_client

if TYPE_CHECKING:
    from registry_sync.domain.remote import RemoteSpec
    from registry_sync.hooks.account_budgets import AccountBudgets
    from registry_sync.oci.client import RegistryClient
    from registry_sync.oci.http.options import ClientOptions

#: What determines the connections to a registry; remotes that agree in it share them.
_OF_CONNECTIONS = (
    "url",
    "conn_id",
    "ssl_validation",
    "ssl_ca_certificate",
    "ssl_client_certificate",
    "proxy_url",
)


class SharedClients:
    """Opens clients of remotes; safe to use from several threads. Closed with all connections.

    ``task_count`` tasks share the limits of the connections, as :func:`open_client`. ``least_concurrency`` is the
    smallest number of connections to a registry at once, whatever one remote asks for, unless the connection allows
    fewer. ``budgets`` are what accounts allow all processes together; None for nobody else.
    """

    def __init__(self, task_count: int = 1, least_concurrency: int = 1, budgets: AccountBudgets | None = None) -> None:
        self._task_count = task_count
        self._budgets = budgets
        self._least_concurrency = least_concurrency
        self._clients: dict[tuple[Any, ...], RegistryClient] = {}
        self._options: dict[tuple[Any, ...], ClientOptions] = {}
        self._lock = threading.Lock()

    @contextmanager
    def connect(self, remote: RemoteSpec) -> Iterator[tuple[RegistryClient, RemoteSpec]]:
        """A client of the remote with a usage of its own, and ``remote`` with the concurrency that is allowed.

        Raises :class:`~registry_sync.errors.ConfigurationError`, also for a missing connection.
        """
        shared = self._shared(remote)
        concurrency = min(remote.download_concurrency, shared.options.concurrency)
        given = (shared, concurrency, remote.include_foreign_layers, remote.allow_schema1, remote.digest_list)
        options = self._options.get(given)
        if options is None:  # as most mirrors of a registry have the same
            options = replace(
                shared.options,
                concurrency=concurrency,
                follow_foreign_urls=remote.include_foreign_layers,
                allow_schema1=remote.allow_schema1,
                digest_list=remote.digest_list,
            )
            self._options[given] = options
        is_allowed = concurrency == remote.download_concurrency
        yield shared.sharing(options), remote if is_allowed else replace(remote, download_concurrency=concurrency)

    def _shared(self, remote: RemoteSpec) -> RegistryClient:
        key = tuple(str(getattr(remote, name)) for name in _OF_CONNECTIONS)
        with self._lock:
            found = self._clients.get(key)
            if found is None:
                wanted = max(remote.download_concurrency, self._least_concurrency)
                found = open_client(replace(remote, download_concurrency=wanted), self._task_count, self._budgets)
                self._clients[key] = found
        return found

    def close(self) -> None:
        """Closes the connections of all clients."""
        while self._clients:
            self._clients.popitem()[1].close()

    def __enter__(self) -> SharedClients:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, problem: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.close()
