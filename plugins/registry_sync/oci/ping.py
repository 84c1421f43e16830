"""What answers at ``/v2/`` (distribution specification, "Determining Support")."""

from __future__ import annotations

from dataclasses import dataclass

from registry_sync.errors import NotARegistry, NotFound, ProtocolError
from registry_sync.oci.answer_errors import Occasion, printable
from registry_sync.oci.answers import Answer
from registry_sync.oci.authenticator import Authenticator
from registry_sync.oci.requester import Requester

MAX_ANSWER_BYTES = 64 * 1024


@dataclass(frozen=True)
class Ping:
    """``auth_scheme`` is ``none``, ``basic`` or ``bearer``; ``realm_host`` and ``service`` are of a bearer challenge.

    ``api_version`` is the legacy ``Docker-Distribution-API-Version``, None on registries that no longer send it.
    """

    auth_scheme: str
    realm_host: str | None = None
    service: str | None = None
    api_version: str | None = None


def ping(requester: Requester, authenticator: Authenticator) -> Ping:
    """Asks, and answers the challenge. Raises :class:`NotARegistry` when something else answers there."""
    target = requester.target("/v2/")
    host = target.origin.netloc
    try:
        api_version = requester.ask("GET", target, Occasion("registry", subject=host), {}, _read)
    except (NotFound, ProtocolError) as problem:
        raise NotARegistry(
            f"{host} does not answer as a registry at /v2/: {problem}",
            host=host,
            method="GET",
            url=target.url,
            status=problem.status,
        ) from problem
    choice = authenticator.choice
    if choice is None:
        return Ping("none", api_version=api_version)
    if choice.scheme != "bearer":
        return Ping(choice.scheme, api_version=api_version)
    realm = authenticator.realm_host()
    return Ping("bearer", realm, choice.challenge.service, api_version)


def _read(answer: Answer) -> str | None:
    """The API version; a page made for people is not a registry's answer."""
    data = answer.read(MAX_ANSWER_BYTES, "answer to /v2/")
    content_type = (answer.header("Content-Type") or "").lower()
    if "html" in content_type or data.lstrip()[:1] == b"<":
        raise answer.protocol_error("a web page answers there")
    version = answer.header("Docker-Distribution-API-Version")
    return printable(version)[:64] if version else None
