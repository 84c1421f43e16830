"""Facts about registries that are known by their hosts: one row each, and the only place for them.

A row is for facts that no response states, such as an alias or a token service on another host. Facts that responses
state are read from them, so most registries need no row. The table belongs to ``domain``, because the address of a
registry is parsed here; the client and the hooks read it too.
"""

from __future__ import annotations

import re
from dataclasses import dataclass
from functools import cached_property


@dataclass(frozen=True)
class KnownRegistry:
    """A registry, or all that have hosts of one form.

    ``host`` serves the API: a host, or a pattern of hosts with placeholders, whose values match ``placeholders``; a
    literal such as ``-fips`` belongs to the value. ``aliases`` are other hosts that users write for it, ``websites``
    hosts that are no registry and are refused. ``official_namespace`` is prepended to a repository name of one
    component. ``token_hosts`` are other hosts whose token service may be sent its credentials. ``credentials_path`` is
    a path that its stored credentials are known to carry. With ``hides_existence`` a 401 to accepted credentials means
    that the repository is missing or private. ``credential_helper`` makes passwords for it, by asking ``login_service``
    in ``login_region``, None for the region in the host.
    """

    name: str
    host: str
    placeholders: tuple[tuple[str, str], ...] = ()
    aliases: frozenset[str] = frozenset()
    websites: frozenset[str] = frozenset()
    official_namespace: str | None = None
    token_hosts: frozenset[str] = frozenset()
    credentials_path: str | None = None
    hides_existence: bool = False
    credential_helper: str | None = None
    login_service: str | None = None
    login_region: str | None = None

    @cached_property
    def _form(self) -> re.Pattern[str]:
        form = re.escape(self.host)
        for name, shape in self.placeholders:
            form = form.replace(re.escape(f"<{name}>"), f"(?P<{name}>{shape})")
        return re.compile(form)

    def parts(self, host: str) -> dict[str, str] | None:
        """What stands in ``host`` for the placeholders; None when it is not of this registry."""
        found = self._form.fullmatch(host)
        return None if found is None else found.groupdict("")


DOCKER_HUB = KnownRegistry(
    "Docker Hub",
    "registry-1.docker.io",
    aliases=frozenset({"docker.io", "index.docker.io", "registry.hub.docker.com"}),
    websites=frozenset({"hub.docker.com"}),
    official_namespace="library",
    token_hosts=frozenset({"auth.docker.io"}),
    credentials_path="/v1",
    hides_existence=True,
)
KNOWN_REGISTRIES = (
    DOCKER_HUB,
    KnownRegistry("GitLab.com", "registry.gitlab.com", token_hosts=frozenset({"gitlab.com"})),
    KnownRegistry(
        "Amazon ECR",
        "<account>.dkr.ecr<fips>.<region>.amazonaws.com<suffix>",
        placeholders=(
            ("account", r"[0-9]{12}"),
            ("fips", r"(?:-fips)?"),
            ("region", r"[a-z]{2,}(?:-[a-z0-9]+)+"),
            ("suffix", r"(?:\.cn)?"),
        ),
        credential_helper="amazon_ecr",
        login_service="ecr",
    ),
    KnownRegistry(
        "Amazon ECR Public",
        "public.ecr.aws",
        credential_helper="amazon_ecr",
        login_service="ecr-public",
        login_region="us-east-1",
    ),
)
#: What is assumed of every other registry: nothing.
UNKNOWN = KnownRegistry("", "")


def known_registry(host: str) -> KnownRegistry:
    """The row of the registry whose API is at ``host``, :data:`UNKNOWN` for most; ``host:port`` is another one."""
    return next((known for known in KNOWN_REGISTRIES if known.parts(host) is not None), UNKNOWN)


def registry_called(host: str) -> KnownRegistry:
    """As :func:`known_registry`, for a host as people write it: also an alias, or the registry's website."""
    for known in KNOWN_REGISTRIES:
        if host in known.aliases or host in known.websites:
            return known
    return known_registry(host)
