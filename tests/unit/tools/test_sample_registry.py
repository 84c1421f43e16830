"""The sample that is synced where Docker Hub is out of reach."""

from __future__ import annotations

import gzip
import hashlib
import json
import platform
import subprocess
from pathlib import Path

import pytest

from local_airflow import sample
from local_airflow.layout import Layout
from local_airflow.ports import free_port, is_taken
from local_airflow.sample import SampleRegistry, sample_registry
from local_airflow.sync_command import in_place_of_docker_hub, parameters
from registry_sync.domain.references import RegistryUrl, RepositoryName
from registry_sync.oci.client import RegistryClient
from sample_registry.__main__ import NAME
from sample_registry.content import GREETING, amd64_program, sample_content
from support.shapes import documented_example


def test_it_has_the_shape_of_the_documented_example() -> None:
    made, documented = sample_content(), documented_example()
    assert len(made.tags) == len(documented.tags) == 8
    assert len(made.manifests) == len(documented.manifests) == 21
    assert len(made.blobs) == len(documented.blobs) == 31
    assert set(made.tags) == set(documented.tags)


def test_it_is_the_same_each_time() -> None:
    assert sample_content() == sample_content()


def test_every_layer_is_the_archive_that_its_image_names() -> None:
    content = sample_content()
    images = [json.loads(data) for kind, data in content.manifests.values() if "list" not in kind]
    assert len(images) == 16
    for image in images:
        config = json.loads(content.blobs[image["config"]["digest"]])
        archive = gzip.decompress(content.blobs[image["layers"][0]["digest"]])
        assert config["rootfs"]["diff_ids"] == [f"sha256:{hashlib.sha256(archive).hexdigest()}"]


@pytest.mark.skipif(platform.machine() != "x86_64", reason="the program is for amd64")
def test_its_program_prints_the_greeting(tmp_path: Path) -> None:
    program = tmp_path / "hello"
    program.write_bytes(amd64_program(GREETING))
    program.chmod(0o755)
    done = subprocess.run([program], check=True, capture_output=True, text=True)
    assert done.stdout == GREETING


def test_it_goes_into_a_repository_of_its_own() -> None:
    conf = in_place_of_docker_hub(parameters({}), {}, SampleRegistry("http://127.0.0.1:20000", has_moved=False))
    expected = {"repository": NAME, "url": "http://127.0.0.1:20000", "upstream_name": NAME}
    assert conf == expected
    assert sample.NAME == NAME


def test_its_own_repository_follows_it_to_another_port() -> None:
    moved = SampleRegistry("http://127.0.0.1:20001", has_moved=True)
    assert in_place_of_docker_hub(parameters({}), {}, moved)["replace_upstream"] is True


def test_a_named_repository_is_used_and_never_replaced() -> None:
    env = {"REPOSITORY": "mine", "TAGS": "v1"}
    conf = in_place_of_docker_hub(parameters(env), env, SampleRegistry("http://127.0.0.1:20001", has_moved=True))
    assert (conf["repository"], conf["tags"]) == ("mine", ["v1"])
    assert "replace_upstream" not in conf


@pytest.mark.slow
def test_it_is_served_at_the_place_that_it_had_and_nothing_is_left(tmp_path: Path) -> None:
    layout, port = Layout(folder=tmp_path), free_port()
    layout.make_private()
    (layout.state / "sample-port").write_text(str(port))
    with sample_registry(layout) as served, RegistryClient(RegistryUrl.parse(served.url)) as client:
        assert served == SampleRegistry(f"http://127.0.0.1:{port}", has_moved=False)
        assert len(client.list_tags(RepositoryName(NAME)).tags) == 8
    assert [path.name for path in layout.state.iterdir()] == ["sample-port"]
    assert not is_taken(port)
