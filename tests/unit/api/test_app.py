"""The app on its own: what it takes to make it."""

from __future__ import annotations

import importlib.metadata

import pytest
from fastapi.routing import APIRoute

from registry_sync import __version__
from registry_sync.api.app import MOUNT, create_app
from registry_sync.plugin import RegistrySyncPlugin
from registry_sync.pulp.hrefs import API_PREFIX
from support.rest_api import application


def test_the_app_is_made_where_the_package_only_lies_in_a_plugins_folder(monkeypatch: pytest.MonkeyPatch) -> None:
    """An app that cannot be made would keep Airflow's API server from starting."""

    def missing(name: str) -> str:
        raise importlib.metadata.PackageNotFoundError(name)

    monkeypatch.setattr(importlib.metadata, "version", missing)
    assert create_app().version == __version__


def test_making_the_app_opens_nothing(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("AIRFLOW__REGISTRY_SYNC__SQL_ALCHEMY_CONN", "nonsense")
    monkeypatch.setenv("AIRFLOW__REGISTRY_SYNC__MAX_SHARDS", "nonsense")
    create_app()


def test_the_plugin_gives_one_app_at_the_documented_place() -> None:
    plugin = RegistrySyncPlugin()
    assert [(entry["url_prefix"], entry["app"].title) for entry in plugin.fastapi_apps] == [("/pulp", "registry-sync")]
    assert plugin.fastapi_apps is plugin.fastapi_apps
    assert API_PREFIX.startswith(f"{MOUNT}/")


def test_nothing_of_ours_runs_in_the_threads_that_airflow_shares() -> None:
    """A plain function would: as a route, as a dependency of one, or as a dependency of that."""
    shared = set()
    left = [route.dependant for route in application().routes if isinstance(route, APIRoute)]
    assert left
    while left:
        dependant = left.pop()
        left += dependant.dependencies
        if dependant.call is not None and not dependant.is_coroutine_callable:
            shared.add(dependant.call)
    assert shared == set()
