"""What answers at ``/v2/`` (distribution specification, "Determining Support")."""

from __future__ import annotations

import time
from dataclasses import dataclass
from email.utils import parsedate_to_datetime
from typing import Any

from registry_sync.errors import NotARegistry, NotFound, ProtocolError, RepositoryUnavailable
from registry_sync.oci.answer_errors import Occasion, printable, speaks_for_a_registry
from registry_sync.oci.answers import Answer, web_page
from registry_sync.oci.authenticator import Authenticator
from registry_sync.oci.requester import Requester

MAX_ANSWER_BYTES = 64 * 1024


@dataclass(frozen=True)
class Ping:
    """``auth_scheme`` is ``none``, ``basic`` or ``bearer``; ``realm_host`` and ``service`` are of a bearer challenge.

    ``api_version`` is the legacy ``Docker-Distribution-API-Version``, None on registries that no longer send it.
    ``is_authenticated`` says that credentials were asked for and accepted. ``clock_offset_seconds`` is how far the
    registry's clock is ahead, None when it does not tell the time. ``is_served`` False says that ``/v2/`` itself is
    not there, as before some proxies, and an error of a registry is: then nothing is known of authentication.
    """

    auth_scheme: str
    realm_host: str | None = None
    service: str | None = None
    api_version: str | None = None
    is_authenticated: bool = False
    clock_offset_seconds: float | None = None
    is_served: bool = True


def ping(requester: Requester, authenticator: Authenticator) -> Ping:
    """Asks, and answers the challenge. Raises :class:`NotARegistry` when something else answers there."""
    target = requester.target("/v2/")
    host = target.origin.netloc
    told: dict[str, Any] = {}
    try:
        told = requester.ask("GET", target, Occasion("registry", subject=host), {}, _read)
    except RepositoryUnavailable:
        # Some registries give anonymous readers tokens for repositories only. It is a registry all the same.
        if authenticator.choice is None:
            raise
    except (NotFound, ProtocolError) as problem:
        if speaks_for_a_registry(problem):
            return Ping("none", is_served=False)
        raise NotARegistry(
            f"{host} does not answer as a registry at /v2/: {problem}",
            host=host,
            method="GET",
            url=target.url,
            status=problem.status,
        ) from problem
    choice = authenticator.choice
    if choice is None:
        return Ping("none", **told)
    return Ping(
        choice.scheme,
        realm_host=authenticator.realm_host(),
        service=choice.challenge.service,
        is_authenticated=not authenticator.is_anonymous,
        **told,
    )


def _read(answer: Answer) -> dict[str, Any]:
    """What the answer tells of the registry; a page made for people is not a registry's answer."""
    data = answer.read(MAX_ANSWER_BYTES, "answer to /v2/")
    page = web_page(data, answer.header("Content-Type"))
    if page is not None or data.lstrip()[:1] == b"<":
        raise answer.protocol_error(f"{page or 'a web page'} answers there", is_web_page=True)
    version = answer.header("Docker-Distribution-API-Version")
    return {
        "api_version": printable(version)[:64] if version else None,
        "clock_offset_seconds": _clock_offset(answer.header("Date")),
    }


def _clock_offset(date: str | None) -> float | None:
    try:
        return parsedate_to_datetime(date or "").timestamp() - time.time()
    except (TypeError, ValueError, OverflowError, IndexError):
        return None
