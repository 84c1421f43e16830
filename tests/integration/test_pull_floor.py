"""A floor of pulls over whole syncs: the first try, its retry and the next run leave as many as they were told to."""

from __future__ import annotations

import threading
from dataclasses import replace

import pytest

from registry_sync.domain.remote import RemoteSpec
from registry_sync.errors import RateLimited
from registry_sync.oci.client import RegistryClient
from support.hostile_registry import HostileRegistry, Raw, Request, reply
from support.serving import serve
from support.shapes import wide
from support.syncing import Installation, new_client

pytestmark = pytest.mark.rule("A9.6")
NAME, FLOOR = "library/app", 40
CONTENT = wide(0.01, tags=40)


class Pulls:
    """Lets a registry count GETs of manifests, and tell what is left of them with each answer about a manifest."""

    def __init__(self, server: HostileRegistry, left: int) -> None:
        self.left = left
        self._lock = threading.Lock()
        for name, digest in [*CONTENT.tags.items(), *((digest, digest) for digest in CONTENT.manifests)]:
            manifest = CONTENT.manifests[digest]
            for method in ("HEAD", "GET"):
                server.on(
                    method, f"/v2/{NAME}/manifests/{name}", self._answer(manifest.data, manifest.media_type, digest)
                )

    def _answer(self, data: bytes, media_type: str, digest: str):  # type: ignore[no-untyped-def]
        def response(request: Request) -> Raw:
            with self._lock:
                self.left -= request.method == "GET"
                left = [("ratelimit-remaining", f"{self.left};w=21600"), ("Docker-Content-Digest", digest)]
            return reply(200, data, left, content_type=media_type)

        return response


def leaving_over(remote: RemoteSpec) -> RegistryClient:
    usual = new_client(remote)
    return RegistryClient(remote.url, None, replace(usual.options, rate_limit_floor=FLOOR))


def test_the_floor_holds_in_a_run_in_its_retry_and_in_the_next_run(here: Installation) -> None:
    with HostileRegistry() as server:
        serve(server, NAME, CONTENT)
        pulls = Pulls(server, FLOOR + 20)
        for run_id in ("first", "first", "second"):
            with pytest.raises(RateLimited):
                here.sync("app", server.base, NAME, run_id=run_id, client=leaving_over)
            assert pulls.left == FLOOR, "what could be pulled was, and nothing more"
        pulls.left = 1000
        version = here.sync("app", server.base, NAME, run_id="second", client=leaving_over)
    assert version is not None
    assert version.is_complete
    assert pulls.left == 1000 - (len(CONTENT.manifests) - 20), "what was pulled in the first run is not pulled again"
