"""Versions and publications over REST are events of Airflow's assets, as those that tasks make."""

from __future__ import annotations

from typing import Any

import pytest
from airflow.models.asset import AssetAliasModel, AssetEvent, AssetModel
from airflow.utils.session import create_session
from sqlalchemy.exc import OperationalError

from registry_sync.domain.asset_names import VERSIONS_ALIAS, asset_of_base_path, asset_of_repository
from support.metadata import Upstream, image, sync
from support.rest_api import ApiServer, RestClient


@pytest.fixture
def repository(api_server: ApiServer, admin: RestClient, name: str) -> str:
    """The path of a repository with two versions: ``latest`` has moved."""
    made = admin.post("repositories/docker/docker/", name=name)
    record, upstream = api_server.database.repositories.by_name(name), Upstream()
    for layer in ("old", "new"):
        upstream.tag("latest", image(layer, note=name))
        sync(api_server.database, record, upstream)
    path: str = made["pulp_href"]
    return path


def events(uri: str) -> list[dict[str, Any]]:
    with create_session() as session:
        found = session.query(AssetEvent).join(AssetModel, AssetModel.id == AssetEvent.asset_id)
        return [event.extra for event in found.filter(AssetModel.uri == uri).order_by(AssetEvent.id)]


def test_a_rollback_is_an_event_with_the_tags_in_hand_and_nothing_changed_is_none(
    admin: RestClient, repository: str, name: str
) -> None:
    made = admin.post(f"{repository}versions/1/rollback/")
    (event,) = events(asset_of_repository(name).uri)
    assert (event["repository"], event["number"], event["origin"]) == (name, 3, "rollback")
    assert event["href"] == made["pulp_href"]
    (tag,) = event["tags"]["moved"]
    assert (tag["name"], tag["digest"] != tag["previous_digest"]) == ("latest", True)
    assert admin.ask("POST", f"{repository}versions/1/rollback/", {}).status_code == 200
    assert len(events(asset_of_repository(name).uri)) == 1


def test_promotions_tags_and_former_names(admin: RestClient, repository: str, name: str) -> None:
    """The container form makes them by tasks; a DAG that follows a former name goes on."""
    target = admin.post("repositories/docker/docker/", name=f"{name}-stable")["pulp_href"]
    admin.post(f"{target}copy_tags/", source_repository=repository)
    in_form = target.replace("docker/docker", "container/container")
    digest = events(asset_of_repository(f"{name}-stable").uri)[0]["tags"]["added"][0]["digest"]
    admin.patch(target, name=f"{name}-renamed")
    admin.post(f"{in_form}tag/", 202, tag="again", digest=digest)
    for each in (f"{name}-stable", f"{name}-renamed"):
        found = events(asset_of_repository(each).uri)
        assert found[-1]["tags"]["added"] == [{"name": "again", "digest": digest}]
        assert found[-1]["repository"] == f"{name}-renamed"
    assert [event["origin"] for event in events(asset_of_repository(f"{name}-stable").uri)] == ["copy", "tag"]


def test_who_is_scheduled_on_all_versions_is_among_those_that_are_told(
    admin: RestClient, repository: str, name: str
) -> None:
    with create_session() as session:
        if session.query(AssetAliasModel).filter(AssetAliasModel.name == VERSIONS_ALIAS).first() is None:
            session.add(AssetAliasModel(name=VERSIONS_ALIAS))
    admin.post(f"{repository}versions/1/rollback/")
    with create_session() as session:
        alias = session.query(AssetAliasModel).filter(AssetAliasModel.name == VERSIONS_ALIAS).one()
        uris = [event.asset.uri for event in alias.asset_events]
    assert asset_of_repository(name).uri in uris


def test_what_is_published_is_an_event_when_it_changes(admin: RestClient, repository: str, name: str) -> None:
    made = admin.post("distributions/docker/docker/", name=name, base_path=name, repository=repository)
    path = made["pulp_href"]
    admin.patch(path, private=False)
    admin.patch(path, repository=None, repository_version=f"{repository}versions/1/")
    admin.put(path, name=name, base_path=name, repository_version=f"{repository}versions/1/")
    admin.put(path, name=name, base_path=f"{name}/moved", repository=repository)
    assert [event["number"] for event in events(asset_of_base_path(name).uri)] == [None, 1]
    (moved,) = events(asset_of_base_path(f"{name}/moved").uri)
    assert moved == {"base_path": f"{name}/moved", "repository": name, "number": None, "href": path}


def test_a_version_is_made_also_where_its_event_cannot_be_written(
    admin: RestClient, repository: str, name: str, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    def fail(*_: Any, **__: Any) -> None:
        raise OperationalError("INSERT", {}, Exception("database is locked"))

    monkeypatch.setattr("airflow.assets.manager.AssetManager.register_asset_change", fail)
    assert admin.post(f"{repository}versions/1/rollback/")["number"] == 3
    assert f"has no event of version 3 of {name}, so DAGs that follow it do not start" in caplog.text
