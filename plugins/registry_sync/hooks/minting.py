"""Credential helpers: who makes short-lived credentials for a registry, by the name that a connection gives.

A helper of another cloud is a function of this shape in a module of its own, a line in :data:`MINTS`, and its name in
the form (``provider.py``). It imports its SDK when it is called and not before.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping

from registry_sync.domain.references import RegistryUrl
from registry_sync.hooks.amazon_ecr import amazon_ecr
from registry_sync.oci.credentials import Credentials, Minted, MintedCredentials

#: From the registry, the user name and password of the connection, and the proxy, to what mints. Each raises
#: :class:`~registry_sync.errors.ConfigurationError` at once for what can be known without asking anybody.
MINTS: Mapping[str, Callable[[RegistryUrl, Credentials, str | None], Callable[[], Minted]]] = {
    "amazon_ecr": amazon_ecr,
}


def minted_credentials(
    helper: str, registry: RegistryUrl, login: Credentials, proxy_url: str | None
) -> MintedCredentials:
    """Credentials for ``registry`` as ``helper`` makes them; nothing is asked before they are needed."""
    return MintedCredentials(MINTS[helper](registry, login, proxy_url))
