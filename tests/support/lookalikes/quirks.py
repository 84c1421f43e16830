"""How registries differ, as values. What a field says nothing of follows the distribution specification."""

from __future__ import annotations

from dataclasses import dataclass, field
from enum import Enum

from registry_sync.domain.known_registries import DigestList

#: The password of every look-alike.
PASSWORD = "correct horse battery"


class Habit(str, Enum):
    """What a registry does of its own, seen by a client that gets to it."""

    GIVES_TOKENS = "gives tokens"
    TELLS_NO_SCOPE = "tells no scope"
    REFUSES_SILENTLY = "refuses without a challenge"
    HAS_NO_TOKENS = "offers tokens that it does not have"
    WANTS_BASIC_LATER = "wants a password after tokens"
    REVOKES_A_TOKEN = "revokes a token"
    REFUSES_PAGE_SIZES = "refuses page sizes"
    LISTS_IN_PAGES = "lists in pages"
    LOSES_A_PAGE = "loses a page"
    LISTS_ODD_NAMES = "lists odd names"
    LIMITS_PULLS = "limits pulls"
    REDIRECTS = "redirects"
    COMPRESSES_CONFIGS = "compresses configs"
    LISTS_REFERRERS = "lists referrers"
    LACKS_REFERRERS = "lacks the referrers API"
    SENDS_ON = "sends its readers on to another registry"
    SIGNS_FOR_GET = "signs the addresses of manifests for GET alone"


@dataclass(frozen=True)
class Auth:
    """How it challenges a client, and which authorization it accepts.

    ``schemes`` are offered in this order, each on a line of its own. ``realm`` is the path of the token service, on a
    host of its own when ``realm_is_elsewhere``. ``names_scope`` False leaves the scope out of the challenge;
    ``asks_at_ping_only`` sends the challenge with the response of ``/v2/`` only; ``guards_ping_only`` requires
    authentication there only. ``exchange_status`` is the status of the token service. After ``bearer_requests``
    requests Basic is required in place of a bearer token (None: never). The first token is revoked after
    ``first_token_requests`` (None: never).
    """

    schemes: tuple[str, ...] = ("Bearer",)
    realm: str = "/token"
    realm_is_elsewhere: bool = False
    service: str = "registry"
    names_scope: bool = True
    asks_at_ping_only: bool = False
    guards_ping_only: bool = False
    takes_anonymous: bool = False
    username: str = "mirror"
    token_field: str = "token"
    exchange_status: int = 200
    bearer_requests: int | None = None
    first_token_requests: int | None = None


@dataclass(frozen=True)
class TagPages:
    """How it lists tags.

    ``cap`` is the most on a page: more is refused with 405 ``UNSUPPORTED`` when ``refuses_above_cap``, else the page
    is cut. ``link`` names the next page: ``relative``, ``absolute``, with the path of another ``connector`` (which
    responds 400), ``shortened`` by the first component of the name, or ``none``. ``parameter`` carries the position,
    which is a ``tag``, a ``number`` or ``opaque``. ``odd_names`` stand before the tags of the first page.
    ``vanishes_once`` responds with 404 to the first page after the first. ``keeps_order`` lists in the order of the
    content, not sorted. ``has_manifest_map`` adds Google's ``manifest`` and ``child``.
    """

    cap: int = 1000
    refuses_above_cap: bool = False
    link: str = "relative"
    parameter: str = "last"
    position: str = "tag"
    odd_names: tuple[str | None, ...] = ()
    vanishes_once: bool = False
    keeps_order: bool = False
    has_manifest_map: bool = False
    content_type: str = "application/json"


@dataclass(frozen=True)
class ManifestAnswers:
    """What it says beside a manifest.

    ``digest_on`` are the methods whose response has ``Docker-Content-Digest``. ``content_type`` stands in place of the
    manifest's own. ``heeds_accept`` rewrites a list by tag to its first image, and does not find OCI manifests, where
    ``Accept`` does not request them. ``counts_pulls`` reports how many GETs remain; HEADs are free.
    ``is_limited_at_first`` refuses the first GET with 429 and the end of the wait in seconds since 1970;
    ``denies_first`` refuses the manifest that is requested first with 403, every time. With ``head_refusal`` manifests
    are handed out by a redirect to the storage host, whose signature is for GET: HEAD gets that status there.
    """

    digest_on: frozenset[str] = frozenset({"HEAD", "GET"})
    content_type: str | None = None
    has_etag: bool = False
    heeds_accept: bool = False
    counts_pulls: bool = False
    is_limited_at_first: bool = False
    denies_first: bool = False
    head_refusal: int | None = None
    headers: tuple[tuple[str, str], ...] = ()


@dataclass(frozen=True)
class BlobAnswers:
    """How it hands out blobs: by a redirect of status ``redirect`` to the storage host, or itself (None).

    ``gzips_configs`` sends configs under ``Content-Encoding: gzip`` although none was requested.
    """

    redirect: int | None = None
    gzips_configs: bool = False


@dataclass(frozen=True)
class Refusal:
    """An error response. One of 401 has a challenge, with ``error="insufficient_scope"`` when ``is_about_scope``."""

    status: int
    code: str
    message: str = ""
    is_about_scope: bool = False


@dataclass(frozen=True)
class Referrers:
    """The referrers API: ``status`` 200 is one that works, anything else is its status instead.

    ``reads_tag_as_digest`` takes the tag ``sha256-<hex>`` for the digest and gives the subject itself. With
    ``redirect``, a status, the request is redirected to the storage host, which responds instead; ``page`` is then a
    web page, sent with ``status``.
    """

    status: int = 404
    reads_tag_as_digest: bool = False
    redirect: int | None = None
    page: str | None = None


@dataclass(frozen=True)
class Digests:
    """Its list of the digests of all tags: the API ``source``, None for none.

    With ``is_asked_by_default`` a client asks it without a setting. ``is_elsewhere`` has it on the storage host.
    """

    source: DigestList | None = None
    is_asked_by_default: bool = False
    is_elsewhere: bool = False


@dataclass(frozen=True)
class LookAlike:
    """One registry. ``missing`` is its response for repositories that it does not have.

    With ``sends_on_to``, a path, every request for a repository is redirected to another registry, which
    has it below that path, lets everybody in and is at the storage host; queries are lost on the way.
    """

    name: str
    repository: str = "team/app"
    auth: Auth = field(default_factory=Auth)
    tags: TagPages = field(default_factory=TagPages)
    manifests: ManifestAnswers = field(default_factory=ManifestAnswers)
    blobs: BlobAnswers = field(default_factory=BlobAnswers)
    referrers: Referrers = field(default_factory=Referrers)
    digests: Digests = field(default_factory=Digests)
    missing: Refusal = field(
        default_factory=lambda: Refusal(404, "NAME_UNKNOWN", "repository name not known to registry")
    )

    sends_on_to: str | None = None

    @property
    def tells_digests(self) -> bool:
        """Whether a HEAD says which manifest a tag names, or a GET in its place."""
        return "HEAD" in self.manifests.digest_on or self.manifests.head_refusal is not None

    @property
    def gives_digests(self) -> bool:
        """Whether a client without a setting gets the digests of all tags at once."""
        return self.tags.has_manifest_map or self.digests.is_asked_by_default

    @property
    def habits(self) -> set[Habit]:
        """What a client meets that reads all of a repository with more than a hundred tags."""
        auth, tags = self.auth, self.tags
        has_tokens = "Bearer" in auth.schemes and auth.exchange_status == 200
        habits = {
            Habit.GIVES_TOKENS: has_tokens and not auth.guards_ping_only,
            Habit.TELLS_NO_SCOPE: has_tokens and not auth.guards_ping_only and not auth.names_scope,
            Habit.REFUSES_SILENTLY: auth.asks_at_ping_only,
            Habit.HAS_NO_TOKENS: auth.exchange_status != 200,
            Habit.WANTS_BASIC_LATER: auth.bearer_requests is not None,
            Habit.REVOKES_A_TOKEN: auth.first_token_requests is not None,
            Habit.REFUSES_PAGE_SIZES: tags.refuses_above_cap,
            Habit.LISTS_IN_PAGES: tags.cap <= 100,
            Habit.LOSES_A_PAGE: tags.vanishes_once,
            Habit.LISTS_ODD_NAMES: bool(tags.odd_names),
            Habit.LIMITS_PULLS: self.manifests.is_limited_at_first,
            Habit.REDIRECTS: self.blobs.redirect is not None,
            Habit.COMPRESSES_CONFIGS: self.blobs.gzips_configs,
            Habit.LISTS_REFERRERS: self.referrers.status == 200 and self.referrers.page is None,
            Habit.LACKS_REFERRERS: self.referrers.status != 200 or self.referrers.page is not None,
            Habit.SENDS_ON: self.sends_on_to is not None,
            Habit.SIGNS_FOR_GET: self.manifests.head_refusal is not None,
        }
        return {habit for habit, is_expected in habits.items() if is_expected}

    def __str__(self) -> str:
        return self.name
