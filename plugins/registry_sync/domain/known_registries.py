"""Facts about registries that are known by their hosts: one row each, and the only place for them.

A row is for facts that no response states, such as an alias or a token service on another host. Facts that responses
state are read from them, so most registries need no row. The table belongs to ``domain``, because the address of a
registry is parsed here; the client and the hooks read it too.
"""

from __future__ import annotations

import re
from collections.abc import Mapping
from dataclasses import dataclass
from enum import Enum
from functools import cached_property, lru_cache
from types import MappingProxyType


class DigestList(str, Enum):
    """From where a sync takes the digests of all tags at once: the option of a remote.

    ``auto`` reads the digests that a registry adds to its list of tags, and asks the registry's own API where that is
    known to need no other right and no other host. ``off`` sends a HEAD for each tag. The others name the API to ask.
    """

    AUTO = "auto"
    OFF = "off"
    QUAY = "quay"
    GITLAB = "gitlab"
    AZURE = "azure"
    HARBOR = "harbor"
    ZOT = "zot"
    DOCKER_HUB = "docker_hub"


class DigestAccess(Enum):
    """What a request for a list of digests carries.

    ``NOTHING``: no ``Authorization``. ``CHALLENGE``: what a challenge requests, as for other requests. ``BASIC``: name
    and password of the connection, for an API of the registry's host that knows no tokens.
    """

    NOTHING = "nothing"
    CHALLENGE = "challenge"
    BASIC = "basic"


@dataclass(frozen=True)
class DigestApi:
    """An API that lists tags with digests, beside the one of the distribution specification.

    ``path`` has the placeholders ``{name}`` (the repository), ``{first}`` (its first component), ``{rest}`` (the other
    ones) and ``{rest_twice}`` (the same, percent-encoded twice); with ``{page}`` pages are numbered from 1, else they
    are linked by a ``Link``. ``host`` serves it, None for the registry's own; another host has the registry's website.

    ``entries`` are the keys that lead to the list of entries; none when it is the whole document. ``digest`` is the key
    of an entry's digest, ``tag`` that of its tag's name; with ``tags`` an entry has several, below that key. An entry
    with a value under one of ``temporary`` is one that a cache keeps for a time, and proves nothing. Another page
    follows where ``more`` has a value, and without ``more`` after a page of ``page_size`` entries.

    ``pushed`` is the key of the time of the last push, of a tag or its entry; None where that is not listed.
    ``scope`` are the actions of the token that it requires. ``cache_path`` is a document that has a value under
    ``cache_key`` when the repository is a cache of another registry.
    """

    path: str
    entries: tuple[str, ...]
    tag: str
    digest: str
    page_size: int
    tags: str | None = None
    access: DigestAccess = DigestAccess.CHALLENGE
    scope: str = "pull"
    host: str | None = None
    more: str | None = None
    temporary: tuple[str, ...] = ()
    cache_path: str | None = None
    cache_key: str = ""
    pushed: str | None = None


#: No API pages further than this; an API without pages has one of this size.
_WHOLE = 1_000_000
DIGEST_APIS: Mapping[DigestList, DigestApi] = MappingProxyType(
    {
        DigestList.QUAY: DigestApi(
            "/api/v1/repository/{name}/tag/?onlyActiveTags=true&limit=100&page={page}",
            entries=("tags",),
            tag="name",
            digest="manifest_digest",
            page_size=100,
            access=DigestAccess.NOTHING,
            more="has_additional",
            temporary=("end_ts", "expiration"),
            pushed="start_ts",
        ),
        DigestList.GITLAB: DigestApi(
            "/gitlab/v1/repositories/{name}/tags/list/?n=1000",
            entries=(),
            tag="name",
            digest="digest",
            page_size=1000,
            pushed="published_at",
        ),
        DigestList.AZURE: DigestApi(
            "/acr/v1/{name}/_tags?n=1000",
            entries=("tags",),
            tag="name",
            digest="digest",
            page_size=1000,
            scope="metadata_read",
            pushed="lastUpdateTime",
        ),
        DigestList.HARBOR: DigestApi(
            "/api/v2.0/projects/{first}/repositories/{rest_twice}/artifacts"
            "?with_tag=true&q=tags%3D*&page_size=100&page={page}",
            entries=(),
            tag="name",
            digest="digest",
            page_size=100,
            tags="tags",
            access=DigestAccess.BASIC,
            cache_path="/api/v2.0/projects/{first}",
            cache_key="registry_id",
            pushed="push_time",
        ),
        DigestList.ZOT: DigestApi(
            "/v2/_zot/ext/search?query=%7BImageList(repo:%22{name}%22)%7BResults%7BTag%20Digest%7D%7D%7D",
            entries=("data", "ImageList", "Results"),
            tag="Tag",
            digest="Digest",
            page_size=_WHOLE,
        ),
        DigestList.DOCKER_HUB: DigestApi(
            "/v2/namespaces/{first}/repositories/{rest}/tags?page_size=100&page={page}",
            entries=("results",),
            tag="name",
            digest="digest",
            page_size=100,
            access=DigestAccess.NOTHING,
            host="hub.docker.com",
            more="next",
            pushed="tag_last_pushed",
        ),
    }
)


@dataclass(frozen=True)
class KnownRegistry:
    """A registry, or all that have hosts of one form.

    ``host`` serves the API: a host, or a pattern of hosts with placeholders, whose values match ``placeholders``; a
    literal such as ``-fips`` belongs to the value. ``aliases`` are other hosts that users write for it, ``websites``
    hosts that are no registry and are refused. ``official_namespace`` is prepended to a repository name of one
    component. ``token_hosts`` are other hosts whose token service may be sent its credentials. ``credentials_path`` is
    a path that its stored credentials are known to carry. With ``hides_existence`` a 401 to accepted credentials means
    that the repository is missing or private. ``credential_helper`` makes passwords for it, by asking ``login_service``
    in ``login_region``, None for the region in the host. ``digest_list`` is the API for the digests of all tags that is
    asked without a setting; with ``is_cache`` it serves what it has copied from another registry, so that none of its
    lists proves anything. ``page`` is the web page of a repository, with ``<name>`` for its name.
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
    digest_list: DigestList | None = None
    is_cache: bool = False
    page: str | None = None

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


#: The host of Docker Hub in references that people write, and of a reference without a host.
DOCKER_HUB_HOST = "docker.io"
DOCKER_HUB = KnownRegistry(
    "Docker Hub",
    "registry-1.docker.io",
    aliases=frozenset({DOCKER_HUB_HOST, "index.docker.io", "registry.hub.docker.com"}),
    websites=frozenset({"hub.docker.com"}),
    official_namespace="library",
    token_hosts=frozenset({"auth.docker.io"}),
    credentials_path="/v1",
    hides_existence=True,
    page="https://hub.docker.com/r/<name>",
)
GITHUB_HOST = "ghcr.io"
KNOWN_REGISTRIES = (
    DOCKER_HUB,
    KnownRegistry(
        "GitLab.com",
        "registry.gitlab.com",
        token_hosts=frozenset({"gitlab.com"}),
        digest_list=DigestList.GITLAB,
    ),
    KnownRegistry("Quay.io", "quay.io", digest_list=DigestList.QUAY, page="https://quay.io/repository/<name>"),
    KnownRegistry(
        "Azure Container Registry",
        "<registry>.azurecr.<domain>",
        placeholders=(("registry", r"[a-z0-9-]+"), ("domain", r"(?:io|cn|us)")),
        digest_list=DigestList.AZURE,
    ),
    KnownRegistry("Google's mirror of Docker Hub", "mirror.gcr.io", is_cache=True),
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
        page="https://gallery.ecr.aws/<name>",
    ),
    KnownRegistry("GitHub Packages", GITHUB_HOST, page="https://ghcr.io/<name>"),
)
#: What is assumed of every other registry: nothing.
UNKNOWN = KnownRegistry("", "")


def digest_list_by_challenge(service: str | None, realm_path: str) -> DigestList | None:
    """The API of a registry that any host may run, by its challenge: the service and the path of the realm in it.

    None for a challenge that says nothing. Only APIs that need no other right are found so.
    """
    if service == "container_registry" and realm_path == "/jwt/auth":
        return DigestList.GITLAB
    return DigestList.QUAY if service and realm_path == "/v2/auth" else None


@lru_cache(maxsize=1024)
def known_registry(host: str) -> KnownRegistry:
    """The row of the registry whose API is at ``host``, :data:`UNKNOWN` for most; ``host:port`` is another one."""
    return next((known for known in KNOWN_REGISTRIES if known.parts(host) is not None), UNKNOWN)


def registry_called(host: str) -> KnownRegistry:
    """As :func:`known_registry`, for a host as people write it: also an alias, or the registry's website."""
    for known in KNOWN_REGISTRIES:
        if host in known.aliases or host in known.websites:
            return known
    return known_registry(host)
