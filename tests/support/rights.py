"""The table of rights in the documentation, and for each of its lines what somebody does who tries it."""

from __future__ import annotations

import json
import secrets
import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import requests

from registry_sync.db.database import Database
from support.airflow_instance import BUSY_TIMES, POLL_SECONDS
from support.documents import DOCS
from support.metadata import Upstream, image, sync
from support.rest_api import RestClient

REPOSITORIES = "repositories/docker/docker/"
REMOTES = "remotes/docker/docker/"
DISTRIBUTIONS = "distributions/docker/docker/"
#: The host of the connection ``rights_bound`` where no run asks it.
BOUND = "https://bound.example"


def documented() -> dict[str, tuple[str, str, str]]:
    """The least role by way (REST, trigger, connection form), or ``no``, by what is done."""
    text = (DOCS / "explanation" / "security.md").read_text(encoding="utf-8")
    lines = text.partition("<!-- rights -->\n")[2].partition("\n\n")[0].splitlines()[2:]
    cells = [[cell.strip() for cell in line.strip("|").split("|")] for line in lines]
    return {what: (rest, trigger, form) for what, rest, trigger, form in cells}


@dataclass(frozen=True)
class World:
    """A repository with content, the remote that feeds it, another remote, and a task; names and paths.

    ``tagged`` is a repository that no run syncs, and ``digest`` a manifest of it.
    """

    name: str
    repository: str
    remote: str
    other: str
    task: str
    tagged: str
    digest: str
    place: Mapping[str, Any]
    bound: str = BOUND

    @classmethod
    def made_by(
        cls, admin: RestClient, database: Database, url: str, upstream_name: str, *, bound: str = BOUND
    ) -> World:
        """A new one, with connections for it; ``url`` and ``upstream_name`` are where its remote is."""
        name = f"rights-{secrets.token_hex(4)}"
        place: dict[str, Any] = {"url": url, "upstream_name": upstream_name}
        repository = admin.post(REPOSITORIES, name=name)["pulp_href"]
        remote = admin.post(REMOTES, name=name, **place)["pulp_href"]
        other = admin.post(REMOTES, name=f"{name}-other", url="https://other.example", upstream_name="app")["pulp_href"]
        content = Upstream()
        content.tag("v1", image(name))
        source = database.remotes.by_name(name)
        sync(database, database.repositories.by_name(name), content, remote=source)
        task = admin.post(f"{remote}sync/", 202, repository=repository)["task"]
        tagged = admin.post(REPOSITORIES, name=f"{name}-tagged")["pulp_href"]
        sync(database, database.repositories.by_name(f"{name}-tagged"), content, remote=source)
        (tag,) = admin.get("content/docker/tags/", repository_version=f"{tagged}versions/1/")["results"]
        for conn_id, fields in (
            ("rights_bound", {"host": bound}),
            ("rights_any", {"extra": '{"allow_any_host": true}'}),
        ):
            connection = {
                "connection_id": conn_id,
                "conn_type": "registry",
                "login": "a",
                "password": "hunter22",
                **fields,
            }
            assert admin.ask("POST", "/api/v2/connections", connection).status_code in (201, 409)
        return cls(name, repository, remote, other, task, tagged, tag["digest"], place, bound)


Try = tuple[str, str, dict[str, Any] | None]


def over_rest(world: World) -> dict[str, Callable[[], Try]]:
    """Method, path and document of an attempt, by what is done."""

    def new(**more: Any) -> dict[str, Any]:
        return {"name": f"{world.name}-{secrets.token_hex(4)}", "upstream_name": "app", "url": world.bound, **more}

    def published() -> dict[str, Any]:
        base_path = f"{world.name}-{secrets.token_hex(4)}"
        return {"name": base_path, "base_path": base_path}

    return {
        "read": lambda: ("GET", world.repository, None),
        "create": lambda: ("POST", REMOTES, new()),
        "sync a remote": lambda: ("POST", f"{world.remote}sync/", {"repository": world.repository}),
        "sync another": lambda: ("POST", f"{world.other}sync/", {"repository": world.repository, "mirror": True}),
        "change a remote": lambda: ("PATCH", world.remote, {"policy": "immediate", "whitelist_tags": None}),
        "switch off": lambda: ("PATCH", world.other, {"ssl_validation": False}),
        "set or remove a tag": lambda: (
            "POST",
            f"{world.tagged.replace('docker', 'container')}tag/",
            {"tag": "latest", "digest": world.digest},
        ),
        "set or remove a label": lambda: ("POST", f"{world.other}set_label/", {"key": "a", "value": "b"}),
        "delete a task": lambda: ("DELETE", world.task, None),  # a conflict while it runs
        "publish": lambda: ("POST", DISTRIBUTIONS, {**published(), "repository": world.repository}),
        "approve": lambda: ("POST", f"{world.task}approve_removals/", None),
        "give a new remote a connection whose": lambda: ("POST", REMOTES, new(conn_id="rights_bound")),
        "give a new remote a connection that": lambda: ("POST", REMOTES, new(conn_id="rights_any")),
        "give a remote the": lambda: ("POST", REMOTES, new(conn_id=f"registry_sync_remote_{'0' * 32}_00000000")),
    }


def by_trigger(world: World, url: str) -> dict[str, dict[str, Any]]:
    """The parameters of a run, by what is done; ``url`` is where remotes are that the trigger makes."""

    def new(**more: Any) -> dict[str, Any]:
        repository = f"{world.name}-{secrets.token_hex(4)}"
        return {"repository": repository, "url": url, "upstream_name": world.place["upstream_name"], **more}

    stored = {"repository": world.name, "remote": world.name}
    return {
        "create": new(),
        "sync a remote": stored,
        "sync another": {"repository": world.name, "remote": f"{world.name}-other"},
        "change a remote": {**stored, **world.place, "policy": "on_demand"},
        "switch off": new(ssl_validation="false"),
        "publish": {**stored, "publish_as": f"{world.name}/published"},
        "give a new remote a connection whose": new(conn_id="rights_bound", url=world.bound),
        "give a new remote a connection that": new(conn_id="rights_any"),
        "give a remote the": new(conn_id=f"registry_sync_remote_{'0' * 32}_00000000"),
    }


def connection_that_serves_any() -> dict[str, Any]:
    """What the form for connections sends."""
    extra = json.dumps({"allow_any_host": True})
    return {"connection_id": f"rights_{secrets.token_hex(4)}", "conn_type": "registry", "extra": extra}


def line_of(what: str, tries: Mapping[str, Any]) -> Any:
    """What is tried for a line of the table; None when it is nothing that can be tried that way."""
    found = [value for beginning, value in tries.items() if what.startswith(beginning)]
    return found[0] if found else None


def patiently(client: RestClient, attempt: Callable[[], Try]) -> requests.Response:
    """The response; asked for again where Airflow's own routes fail, on a SQLite that many write to."""
    for _ in range(BUSY_TIMES):
        method, path, document = attempt()
        response = client.ask(method, path, document)
        if response.status_code < 500 or not path.startswith("/api/v2/"):
            break
        time.sleep(POLL_SECONDS)
    return response


def least(clients: Mapping[str, RestClient], roles: Sequence[str], attempt: Callable[[], Try] | None) -> str:
    """The least of ``roles``, from the least on, that is not refused.

    What is gone and what conflicts is found out after the question of rights; and that there is nothing to approve,
    which is so once the run of the task has begun.
    """
    if attempt is None:
        return "no"
    allowed, path = [], attempt()[1]
    after_rights = (400, 404, 409) if path.endswith("/approve_removals/") else (404, 409)
    for role in roles:
        response = patiently(clients[role], attempt)
        status = response.status_code
        assert status < 500, (role, path, response.text)
        allowed.append(status < 300 or status in after_rights)
    assert allowed == sorted(allowed), (dict(zip(roles, allowed, strict=True)), "more for a lesser role")
    return next((role.lower() for role, is_allowed in zip(roles, allowed, strict=True) if is_allowed), "no")
