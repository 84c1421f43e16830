"""A listing of tags that takes a token or a password, for tests of authentication."""

from __future__ import annotations

import base64

from registry_sync.oci.auth.credentials import Credentials
from support.hostile_registry import HostileRegistry, Raw, Request, errors_reply, json_reply
from support.oci import REPOSITORY

TAGS = f"/v2/{REPOSITORY}/tags/list"
USER = Credentials("alice", "correct horse")
BASIC = "Basic " + base64.b64encode(b"alice:correct horse").decode()
TAG_LIST = json_reply({"name": REPOSITORY, "tags": ["a"]})


def challenge(header: str, status: int = 401) -> Raw:
    """A response that requests credentials."""
    return errors_reply(status, "UNAUTHORIZED", "authentication required", [("WWW-Authenticate", header)])


def guarded(
    registry: HostileRegistry, realm: str, *, accepted: str = "good", path: str = TAGS, scope: str = ""
) -> None:
    """Lets ``path`` be read with the bearer token ``accepted`` only."""

    def response(request: Request) -> Raw:
        if request.header("authorization") == f"Bearer {accepted}":
            return TAG_LIST
        return challenge(f'Bearer realm="{realm}",service="demo registry",scope="{scope}"')

    registry.on("GET", path, response)
