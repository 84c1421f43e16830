"""Registries that the contract of readers is run on, and the attributes by which a caller distinguishes errors."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Any

import pytest

from registry_sync.domain.references import RegistryUrl
from registry_sync.oci.auth.credentials import Credentials
from registry_sync.oci.client import RegistryClient, RegistryReader
from registry_sync.oci.http.options import ClientOptions
from support.memory_registry import MemoryRegistry
from support.oci import FakeTime
from support.registry import RegistryServer


@dataclass
class Source:
    """A registry that is filled, and readers of it. ``is_real`` says that HTTP lies between."""

    registry: MemoryRegistry | RegistryServer
    is_real: bool
    url: str
    time: FakeTime = field(default_factory=FakeTime)
    opened: list[RegistryClient] = field(default_factory=list)

    def reader(self, credentials: Credentials | None = None, **options: Any) -> RegistryReader:
        """A reader that tries three times and does not really wait."""
        chosen = ClientOptions(**({"max_attempts": 3, "allow_insecure_credentials": True} | options))
        if not self.is_real:
            assert isinstance(self.registry, MemoryRegistry)
            return self.registry.client(credentials, chosen)
        client = RegistryClient(RegistryUrl.parse(self.url), credentials, chosen, clock=self.time.clock)
        self.opened.append(client)
        return client

    def close(self) -> None:
        for client in self.opened:
            client.close()


_TOLD = ("status", "codes", "kind", "retry_after_seconds", "repository", "digest", "expected", "got", "limit")


def error_of(call: Callable[[], object]) -> dict[str, Any]:
    """The error that ``call`` raises, as a caller distinguishes it: its type, and its attributes for programs."""
    with pytest.raises(Exception) as caught:  # noqa: PT011 - its type is compared by the caller
        call()
    error = caught.value
    reported = {key: getattr(error, key) for key in _TOLD if getattr(error, key, None) not in (None, (), "")}
    return {"type": type(error).__name__, "is_temporary": getattr(error, "is_temporary", None), **reported}
