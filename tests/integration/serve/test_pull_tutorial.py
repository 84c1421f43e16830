"""The commands and files of the tutorial about pulling, typed as a reader types them."""

from __future__ import annotations

import json
import os
import shlex
import subprocess
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

import pytest
import yaml
from airflow.cli.cli_parser import get_parser

from registry_sync.db.database import Database
from registry_sync.domain.digests import Digest
from registry_sync.domain.serving import DistributionSpec
from sample_registry.__main__ import NAME, fill
from sample_registry.content import sample_content
from support.containerd import own_containerd
from support.documents import code_blocks
from support.podman import own_podman
from support.pull_server import PullServer

TUTORIAL = "tutorial/pull-with-container-clients.md"
#: The address of the pull server in the tutorial.
ADDRESS = "127.0.0.1:5050"


@dataclass(frozen=True)
class Reader:
    """Has what the tutorial has set up when it comes to the clients."""

    netloc: str
    tags: dict[str, str]
    secret: str

    def commands(self, program: str) -> list[list[str]]:
        """What a reader types of a program, in order, without its name."""
        return [typed[1:] for typed in map(shlex.split, map(self.here, _lines())) if typed[0] == program]

    def file(self, part: str) -> str:
        """The shown file that has ``part`` in it."""
        (found,) = [block.text for block in code_blocks(TUTORIAL) if block.language == "toml" and part in block.text]
        return self.here(found)

    def here(self, text: str) -> str:
        """``text`` with the address of this server."""
        return text.replace(ADDRESS, self.netloc)


def _lines() -> list[str]:
    return [line for block in code_blocks(TUTORIAL) if block.language == "bash" for line in block.text.splitlines()]


@pytest.fixture(scope="module")
def reader(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Reader]:
    """What the tutorial's sync and commands make: a public distribution, two more, and a robot."""
    folder, secret = tmp_path_factory.mktemp("tutorial"), ""
    database = Database.connect(fill(folder).sql_alchemy_conn)
    repository = database.repositories.by_name(NAME).id
    database.distributions.create(DistributionSpec("hello-world", "hello-world", repository, is_private=False))
    for line in _lines():
        if line.startswith("rs "):
            arguments = get_parser().parse_args(["registry-sync", *shlex.split(line)[1:]])
            if line.startswith("rs distribution create"):
                assert arguments.repository == "hello-world"
                is_private = "--public" not in line
                made = DistributionSpec(arguments.name, arguments.base_path, repository, is_private=is_private)
                database.distributions.create(made)
            elif line.startswith("rs robot create"):
                _, secret = database.robots.create(arguments.name, arguments.scope)
    database.close()
    with PullServer(folder) as server:
        yield Reader(server.netloc, dict(sample_content().tags), secret)


def test_skopeo_lists_inspects_and_copies(reader: Reader, tmp_path: Path) -> None:
    environment = {**os.environ, "HOME": str(tmp_path)}
    printed = [
        subprocess.run(["skopeo", *words], check=True, cwd=tmp_path, env=environment, capture_output=True).stdout
        for words in reader.commands("skopeo")
    ]
    assert len(printed) == 3
    assert set(json.loads(printed[0])["Tags"]) == set(reader.tags)
    assert json.loads(printed[1])["Digest"] == reader.tags["latest"]
    copied = (tmp_path / "hello-world" / "manifest.json").read_bytes()
    assert Digest.of(copied) == reader.tags["latest"]


def test_podman_pulls_by_everybody_by_a_robot_and_under_the_name_on_docker_hub(reader: Reader) -> None:
    typed = reader.commands("podman")
    assert [words[0] for words in typed] == ["pull", "login", "pull", "pull"]
    with own_podman() as podman:
        private = typed[2]
        assert b"unauthorized" in podman(*private).stderr
        (podman.folder / "registries.conf").write_text(reader.file("[[registry.mirror]]"))
        for words in typed:
            done = podman(*words, stdin=reader.secret.encode() if words[0] == "login" else b"")
            assert done.returncode == 0, done.stderr.decode()


@pytest.mark.skipif(os.geteuid() != 0, reason="containerd runs as root")
def test_containerd_takes_the_mirror_that_its_file_names(reader: Reader) -> None:
    ((*words, image),) = reader.commands("ctr")
    with own_containerd() as containerd:
        hosts = containerd.hosts / "docker.io"
        hosts.mkdir()
        (hosts / "hosts.toml").write_text(reader.file("capabilities"))
        fetched = containerd(*(word.replace("/etc/containerd/certs.d", str(containerd.hosts)) for word in words), image)
        assert fetched.returncode == 0, fetched.stderr.decode()
        assert reader.tags["latest"] in containerd.content()


def test_the_pod_names_the_secret_that_is_created(reader: Reader) -> None:
    blocks = code_blocks(TUTORIAL)
    (pod,) = [yaml.safe_load(block.text) for block in blocks if block.language == "yaml"]
    (create,) = [shlex.split(block.text) for block in blocks if block.text.startswith("kubectl create secret")]
    server = next(word.partition("=")[2] for word in create if word.startswith("--docker-server="))
    assert [entry["name"] for entry in pod["spec"]["imagePullSecrets"]] == [create[4]]
    assert pod["spec"]["containers"][0]["image"].startswith(f"{server}/team/")
