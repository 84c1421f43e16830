"""The options of a client, its clock and its ``User-Agent``. Times in seconds, sizes in bytes."""

from __future__ import annotations

import re
import threading
import time
from collections.abc import Callable
from dataclasses import dataclass, field

from registry_sync import __version__
from registry_sync.domain.known_registries import DigestList
from registry_sync.domain.manifest_documents import ManifestLimits
from registry_sync.domain.remote import DEFAULT_CONCURRENCY


@dataclass(frozen=True)
class Clock:
    """``monotonic`` measures durations and expiry, ``now`` is seconds since 1970, ``sleep`` waits; all in seconds.

    ``wait`` waits until a condition that the caller holds is notified.
    """

    monotonic: Callable[[], float] = time.monotonic
    now: Callable[[], float] = time.time
    sleep: Callable[[float], None] = time.sleep
    wait: Callable[[threading.Condition], object] = threading.Condition.wait


SYSTEM_CLOCK = Clock()


_CONTACT = re.compile(r"(?:https?://[\x21-\x27\x2a-\x7e]+|[\x21-\x27\x2a-\x7e]+@[\x21-\x27\x2a-\x7e]+)")
LONGEST_CONTACT = 200
CONTACT_SHAPE = "a mail address or an http URL, without blanks and parentheses"


def is_contact(text: str) -> bool:
    """Whether ``text`` is a mail address or an http URL that can stand in a header's comment."""
    return len(text) <= LONGEST_CONTACT and _CONTACT.fullmatch(text) is not None


def user_agent(contact: str | None = None) -> str:
    """The ``User-Agent`` of every request; between releases only the version changes.

    ``contact`` is the address of the operator. Raises :class:`ValueError` for a text that :func:`is_contact` refuses.
    """
    if contact is not None and not is_contact(contact):
        raise ValueError(f"a contact is {CONTACT_SHAPE}")
    whom = f"; +{contact}" if contact else ""
    return f"registry-sync/{__version__} (Apache Airflow{whom})"


@dataclass(frozen=True)
class ClientOptions:
    """How a client connects, waits and gives up.

    Connections: ``concurrency`` is the maximum number of connections to one host. ``requests_per_second`` spaces the
    requests to the registry itself, None for no limit (:mod:`registry_sync.oci.http.rate_limits`). ``verify`` is a path
    to a CA bundle, True for the public CAs, False for no verification. ``client_certificate`` is a path to a PEM file
    with certificate and key, or a pair of paths; it is sent to the registry alone. ``proxy_url`` is http or https.

    Mirrors: ``namespace`` is the host whose content the registry serves; it is sent with each request for content, as
    ``ns``, to the registry itself and nowhere else (distribution specification, "Registry Proxying").

    Trust: hosts are ``host`` or ``host:port``, compared exactly. ``trusted_realm_hosts`` may receive the credentials
    besides the registry itself; redirects may lead to ``private_hosts`` although their addresses are private.
    ``allow_insecure_credentials`` permits passwords over plain http.

    Time: ``longest_wait_seconds`` is the longest wait before a retry; a longer ``Retry-After`` is raised as an error.
    ``retry_budget_seconds`` ends the retries of one request. ``read_timeout_seconds`` is the longest silence and the
    longest time until the headers are complete. A body with less than ``minimum_bytes_per_second`` over
    ``throughput_window_seconds`` is broken off; a blob is then resumed.

    Docker Hub: with ``rate_limit_floor``, manifests are no longer pulled when fewer pulls than that would remain,
    running ones counted; ``rate_limit_sharers`` is the number of clients that share the pulls above it.

    Content: ``strict_digest_header`` False trusts the bytes where a registry sends another ``Docker-Content-Digest``.
    With ``follow_foreign_urls``, a blob that the registry lacks is fetched from the URLs of its descriptor, without
    credentials. With ``allow_schema1``, manifests of Docker's schema 1 are requested and read; each costs a HEAD per
    layer, because they do not state the sizes.

    Digests of all tags at once: ``digest_list`` says from where. ``digest_list_url`` is the scheme, host and port that
    serves that API; None for the registry itself, or the host that is known for it.
    """

    concurrency: int = DEFAULT_CONCURRENCY
    requests_per_second: float | None = None
    connect_timeout_seconds: float = 10
    read_timeout_seconds: float = 60
    verify: bool | str = True
    client_certificate: str | tuple[str, str] | None = None
    proxy_url: str | None = field(default=None, repr=False)
    namespace: str | None = None
    trusted_realm_hosts: frozenset[str] = frozenset()
    private_hosts: frozenset[str] = frozenset()
    allow_insecure_credentials: bool = False
    max_attempts: int = 5
    longest_wait_seconds: float = 20
    retry_budget_seconds: float = 120
    minimum_bytes_per_second: int = 1024
    throughput_window_seconds: float = 60
    rate_limit_floor: int | None = None
    rate_limit_sharers: int = 1
    strict_digest_header: bool = True
    follow_foreign_urls: bool = False
    allow_schema1: bool = False
    digest_list: DigestList = DigestList.AUTO
    digest_list_url: str | None = None
    user_agent: str = user_agent()
    limits: ManifestLimits = field(default_factory=ManifestLimits)
