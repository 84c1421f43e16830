"""The same pull server as that of the tests of `tests/integration/serve`, for clients that are built with Go."""

from __future__ import annotations

from integration.serve.conftest import clients_home, redirecting, served

__all__ = ["clients_home", "redirecting", "served"]
