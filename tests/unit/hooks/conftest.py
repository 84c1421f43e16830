"""A scripted registry, connections to it, and what is given to the masker."""

from __future__ import annotations

import json
from collections.abc import Iterator
from typing import Any

import pytest

from support.hostile_registry import HostileRegistry


@pytest.fixture
def registry() -> Iterator[HostileRegistry]:
    with HostileRegistry() as server:
        yield server


@pytest.fixture
def connect(monkeypatch: pytest.MonkeyPatch):  # type: ignore[no-untyped-def]
    """Defines a connection, as the environment does, and gives its id."""

    def make(conn_id: str = "demo_registry", **fields: Any) -> str:
        monkeypatch.setenv(f"AIRFLOW_CONN_{conn_id.upper()}", json.dumps({"conn_type": "registry", **fields}))
        return conn_id

    return make


@pytest.fixture
def masked(monkeypatch: pytest.MonkeyPatch) -> list[str]:
    """The texts that Airflow's masker was told."""
    told: list[str] = []

    def mask_secret(secret: object, _name: str | None = None) -> None:
        if isinstance(secret, str):
            told.append(secret)

    monkeypatch.setattr("airflow.sdk.log.mask_secret", mask_secret)
    return told
