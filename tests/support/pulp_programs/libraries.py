"""Walks the workflow with the client libraries that are generated from Pulp's API, and prints what it read as JSON.

    libraries.py <url> <user> <password> <form> <name> [<registry>]

It makes a remote and a repository of that name and syncs from the registry; without one it reads the latest version of
the repository of that name, and what it makes has another name. The libraries have the paths ``container/container``,
those of both generations; with the form ``docker`` only paths are changed to the documented ones.
"""

from __future__ import annotations

import json
import sys
import time
from base64 import b64encode
from secrets import token_hex
from typing import Any

from pulpcore.client import pulp_container, pulpcore  # type: ignore[import-not-found]  # of the other environment

_DEADLINE_SECONDS = 120


def _documented(path: str) -> str:
    """A path of the documented workflow."""
    return path.replace("/container/container/", "/docker/docker/").replace("/content/container/", "/content/docker/")


class Libraries:
    """Both libraries, with one login."""

    def __init__(self, url: str, user: str, password: str, form: str) -> None:
        self.container = self._client(pulp_container, url, user, password, form)
        self.core = self._client(pulpcore, url, user, password, form)
        self.repositories = pulp_container.RepositoriesContainerApi(self.container)
        self.versions = pulp_container.RepositoriesContainerVersionsApi(self.container)
        self.remotes = pulp_container.RemotesContainerApi(self.container)
        self.distributions = pulp_container.DistributionsContainerApi(self.container)
        self.tags = pulp_container.ContentTagsApi(self.container)
        self.manifests = pulp_container.ContentManifestsApi(self.container)
        self.blobs = pulp_container.ContentBlobsApi(self.container)
        self.tasks = pulpcore.TasksApi(self.core)
        self.artifacts = pulpcore.ArtifactsApi(self.core)
        self.status = pulpcore.StatusApi(self.core)

    @staticmethod
    def _client(library: Any, url: str, user: str, password: str, form: str) -> Any:
        configuration = library.Configuration(host=url, username=user, password=password)
        # Paths of objects are parameters of paths, which the libraries of 2019 would quote.
        configuration.safe_chars_for_path_param = "/"
        client = library.ApiClient(configuration)
        # The libraries of today send no login with a request for the status.
        client.set_default_header("Authorization", f"Basic {b64encode(f'{user}:{password}'.encode()).decode()}")
        if form == "docker":
            call = client.call_api
            client.call_api = lambda path, *args, **kwargs: call(_documented(path), *args, **kwargs)
        return client

    def ended(self, task: str) -> Any:
        """The task, when it has ended."""
        deadline = time.monotonic() + _DEADLINE_SECONDS
        while True:
            read = self.tasks.read(task)
            if read.state in ("completed", "failed", "canceled"):
                return read
            if time.monotonic() > deadline:
                raise SystemExit(f"{task} has not ended")
            time.sleep(0.2)


def _walk(has: Libraries, name: str, registry: str, *, is_documented: bool) -> dict[str, Any]:
    status, made = has.status.status_read(), name if registry else f"{name}-{token_hex(4)}"
    remote = has.remotes.create(
        pulp_container.ContainerContainerRemote(
            name=made, url=registry or "https://registry.example", upstream_name="library/hello-world"
        )
    )
    repository = has.repositories.create(pulp_container.ContainerContainerRepository(name=made))
    synced = None
    if registry:
        synced = has.ended(has.repositories.sync(repository.pulp_href, _sync(remote.pulp_href)).task)
    holder = has.repositories.list(name=name).results[0]
    version = has.versions.read(holder.latest_version_href)
    in_version = {"repository_version": version.pulp_href}
    hrefs = [repository.pulp_href, remote.pulp_href, version.pulp_href]
    found = {
        "components": [component.component for component in status.versions],
        "connected": status.database_connection.connected,
        "remote": has.remotes.read(remote.pulp_href).url,
        "task": synced and [synced.state, synced.created_resources == [version.pulp_href]],
        "number": version.number,
        "present": {kind: int(units["count"]) for kind, units in version.content_summary.present.items()},
        # The path of versions in the libraries of 2019 has a parameter that they do not fill in.
        "versions": _number_of_versions(has, holder.pulp_href),
        "hrefs": hrefs,
    }
    if is_documented:
        # The documented content has no artifacts, which these libraries require: they read it, and do not parse it.
        read = [json.loads(api.list(**in_version, _preload_content=False).data) for api in (has.tags, has.blobs)]
        return found | {"tags": sorted(tag["name"] for tag in read[0]["results"]), "blobs": read[1]["count"]}
    tags = has.tags.list(**in_version)
    hrefs.append(has.manifests.read(tags.results[0].tagged_manifest).pulp_href)
    blobs = has.blobs.list(**in_version)
    artifact = has.artifacts.read(blobs.results[0].artifact)
    is_of_blob = f"sha256:{artifact.sha256}" == blobs.results[0].digest
    found |= {"tags": sorted(tag.name for tag in tags.results), "blobs": blobs.count, "artifact": is_of_blob}
    return found | _changes(has, repository, remote, made)


def _number_of_versions(has: Libraries, repository: str) -> int | None:
    if hasattr(pulp_container, "RepositorySyncURL"):
        return None
    count: int = has.versions.list(repository).count
    return count


def _sync(remote: str) -> Any:
    kind = getattr(pulp_container, "ContainerRepositorySyncURL", None) or pulp_container.RepositorySyncURL
    return kind(remote=remote, mirror=True)


def _changes(has: Libraries, repository: Any, remote: Any, name: str) -> dict[str, Any]:
    """Changes and deletions, each with a task."""
    patched = {"url": "https://elsewhere.example"}
    has.ended(has.remotes.partial_update(remote.pulp_href, patched).task)
    changed = has.remotes.read(remote.pulp_href).url == patched["url"]
    given = pulp_container.ContainerContainerDistribution(name=name, base_path=name, repository=repository.pulp_href)
    made = has.ended(has.distributions.create(given).task).created_resources[0]
    distribution = has.distributions.read(made)
    states = [
        has.ended(api.delete(href).task).state
        for api, href in (
            (has.distributions, made),
            (has.repositories, repository.pulp_href),
            (has.remotes, remote.pulp_href),
        )
    ]
    return {
        "changed": changed,
        "distributed": distribution.repository == repository.pulp_href,
        "deleted": states,
        "left": has.repositories.list(name=name).count,
    }


def main(url: str, user: str, password: str, form: str, name: str, registry: str = "") -> None:
    """Prints what was read."""
    has = Libraries(url, user, password, form)
    print(json.dumps(_walk(has, name, registry, is_documented=form == "docker")))


if __name__ == "__main__":
    main(*sys.argv[1:])
