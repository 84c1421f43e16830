"""Connections of the hook to a scripted registry."""

from __future__ import annotations

import base64
from typing import Any

from registry_sync.domain.references import RepositoryName
from registry_sync.domain.remote import RemoteSpec
from support.hostile_registry import HostileRegistry, Raw, Request, errors_reply, json_reply

REPOSITORY = RepositoryName("library/demo")
TAGS = f"/v2/{REPOSITORY}/tags/list"
BASIC = "Basic " + base64.b64encode(b"alice:correct horse").decode()


def plain(server: HostileRegistry, **extra: Any) -> dict[str, Any]:
    """Fields of a connection to a scripted registry."""
    return {
        "host": "127.0.0.1",
        "port": server.port,
        "schema": "http",
        "extra": {"allow_insecure_credentials": True, **extra},
    }


def remote_of(server: HostileRegistry, **fields: Any) -> RemoteSpec:
    return RemoteSpec.parse(name="demo", url=server.base, upstream_name=str(REPOSITORY), **fields)


def guarded(server: HostileRegistry) -> None:
    """Lets alice read."""

    def response(request: Request) -> Raw:
        if request.header("authorization") == BASIC:
            return json_reply({"tags": ["a"]})
        return errors_reply(401, "UNAUTHORIZED", headers=[("WWW-Authenticate", "Basic realm=x")])

    server.on("GET", TAGS, response)
    server.on("GET", "/v2/", response)
