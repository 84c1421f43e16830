"""``docker-compose.yaml`` and ``Dockerfile``, as far as can be said without a Docker engine."""

from __future__ import annotations

import re
import shlex
from pathlib import Path
from typing import Any

import pytest
import yaml

from registry_sync.provider import get_provider_info
from registry_sync.serve.server import GRACE_SECONDS

CHECKOUT = Path(__file__).parents[3]
COMPOSE_TEXT = (CHECKOUT / "docker-compose.yaml").read_text()
COMPOSE: dict[str, Any] = yaml.safe_load(COMPOSE_TEXT)
SERVICES: dict[str, dict[str, Any]] = COMPOSE["services"]
DOCKERFILE = (CHECKOUT / "Dockerfile").read_text()
PARTS = ["api-server", "scheduler", "dag-processor", "pull-server", "triggerer"]
#: A variable with what follows its name: ``:?`` and a message when it is required, ``:-`` and a default.
VARIABLE = re.compile(r"(?<!\$)\$\{(\w+)(:[?-][^}]*)?\}")


def _used_variables() -> dict[str, str]:
    return dict(VARIABLE.findall(COMPOSE_TEXT))


def _documented_variables() -> dict[str, str]:
    lines = (CHECKOUT / ".env.example").read_text().splitlines()
    return dict(line.split("=", 1) for line in lines if line and not line.startswith("#"))


def test_the_services_are_airflows_parts_their_database_and_the_set_up() -> None:
    assert list(SERVICES) == ["postgres", "init", *PARTS]


def test_every_variable_is_documented_and_every_documented_one_is_used() -> None:
    assert set(_used_variables()) == set(_documented_variables())


def test_a_secret_is_required_and_has_no_default() -> None:
    used, documented = _used_variables(), _documented_variables()
    secret = {name for name in used if re.search("PASSWORD|SECRET|KEY", name)}
    assert len(secret) == 6
    assert {used[name] for name in secret} == {":?see .env.example"}
    assert {documented[name] for name in secret} == {""}


def test_a_default_is_the_documented_one() -> None:
    used, documented = _used_variables(), _documented_variables()
    defaults = {name: rest.removeprefix(":-") for name, rest in used.items() if rest.startswith(":-")}
    assert defaults == {name: documented[name] for name in defaults}
    assert defaults


def test_the_secrets_are_kept_out_of_git_and_of_the_image() -> None:
    assert "/.env" in (CHECKOUT / ".gitignore").read_text().splitlines()
    ignored = (CHECKOUT / ".dockerignore").read_text().splitlines()
    assert ignored[0] == "*"
    assert "!.env" not in ignored


def _options() -> set[str]:
    """Airflow's settings and ours, as names of environment variables."""
    from airflow.configuration import retrieve_configuration_description

    described = {**retrieve_configuration_description(include_providers=False), **get_provider_info()["config"]}
    return {
        f"AIRFLOW__{section}__{option}".upper() for section, entry in described.items() for option in entry["options"]
    }


#: Of a provider that not everybody installs; ``integration/test_lineage`` shows what it does.
OF_OTHER_PROVIDERS = {"AIRFLOW__OPENLINEAGE__EXECUTE_IN_THREAD"}


@pytest.mark.parametrize("service", ["init", *PARTS])
def test_every_setting_exists(service: str) -> None:
    given = {name for name in SERVICES[service]["environment"] if name.startswith("AIRFLOW__")}
    assert given - _options() == OF_OTHER_PROVIDERS


def test_all_parts_have_the_same_settings_and_secrets() -> None:
    shared = SERVICES["init"]["environment"]
    for part in PARTS:
        assert SERVICES[part]["environment"].items() >= shared.items()


def test_the_parts_start_after_the_databases_are_brought_up() -> None:
    assert SERVICES["init"]["depends_on"] == {"postgres": {"condition": "service_healthy"}}
    assert SERVICES["init"]["restart"] == "no"
    for part in PARTS:
        assert SERVICES[part]["depends_on"]["init"] == {"condition": "service_completed_successfully"}


def test_whatever_keeps_running_has_a_health_check_and_is_restarted() -> None:
    for name in ("postgres", *PARTS):
        assert SERVICES[name]["healthcheck"]["test"][0] == "CMD"
        assert SERVICES[name]["restart"] == "unless-stopped"


def test_only_what_serves_people_and_clients_is_reached_from_outside_and_on_loopback() -> None:
    ports = {name: service["ports"] for name, service in SERVICES.items() if "ports" in service}
    assert list(ports) == ["api-server", "pull-server"]
    assert all(port.startswith("127.0.0.1:") for service in ports.values() for port in service)


def test_downloads_may_end_before_the_pull_server_is_killed() -> None:
    seconds = int(SERVICES["pull-server"]["stop_grace_period"].removesuffix("s"))
    assert seconds > GRACE_SECONDS


def test_every_volume_is_declared_and_its_folder_belongs_to_the_user_of_the_image() -> None:
    mounts = {mount for part in PARTS for mount in SERVICES[part]["volumes"]}
    named = {mount.split(":")[0] for service in SERVICES.values() for mount in service.get("volumes", [])}
    assert {name for name in named if not name.startswith(".")} == set(COMPOSE["volumes"])
    prepared = re.search(r"install --directory --owner airflow (.*)", DOCKERFILE)
    assert prepared is not None
    assert {mount.split(":")[1] for mount in mounts} <= set(prepared[1].split())


def test_every_file_that_is_mounted_or_copied_exists() -> None:
    mounted = [mount.split(":")[0] for mount in SERVICES["postgres"]["volumes"] if mount.startswith(".")]
    copied = [
        source
        for line in DOCKERFILE.splitlines()
        if line.startswith("COPY ") and "--from" not in line
        for source in shlex.split(line)[1:-1]
    ]
    assert len(mounted) == 1
    assert "requirements/runtime.txt" in copied
    assert [name for name in mounted + copied if not (CHECKOUT / name).exists()] == []


def test_images_of_others_are_named_with_a_version() -> None:
    images = [service["image"] for service in SERVICES.values() if service["image"] != "registry-sync:latest"]
    assert images == ["postgres:16-bookworm"]
    assert re.findall(r"^FROM (\S+)", DOCKERFILE, re.MULTILINE) == ["python:${PYTHON_VERSION}-slim-bookworm"] * 2
