"""Every error of registry-sync, in one tree sorted by who must act.

::

    RegistrySyncError
    ├── InvalidReference            the author of a reference, URL, filter or option we were given
    │   └── InvalidNotification         what a registry sent to a webhook is not of the documented form
    ├── ConfigurationError          the person who configures this installation
    ├── RegistryError               the operator of a registry, or of the network before it
    │   ├── NotARegistry                 /v2/ does not respond as the registry API
    │   ├── ChallengeInvalid            401 without a challenge that can be used
    │   ├── RealmRefused                credentials may not go where the challenge sends them
    │   ├── RedirectRefused             a redirect or link leaves what the policy allows
    │   ├── UntrustedCertificate        the TLS certificate is not signed by a CA that is trusted here
    │   ├── AuthenticationFailed        the credentials were rejected
    │   ├── AccessDenied                the credentials are good and do not suffice
    │   ├── RepositoryUnavailable       missing or forbidden, the registry does not say which
    │   ├── NotFound                    404 of a repository, manifest or blob (``kind``)
    │   ├── RateLimited                 429 (``retry_after_seconds``); temporary
    │   ├── ServerUnavailable           5xx, 408, refused, reset, timed out; temporary
    │   ├── ProtocolError               a response that the specification does not allow
    │   ├── PaginationError             a listing that loops, makes no progress or cannot be read to its end
    │   └── ReferrersUnavailable        referrers of a manifest cannot be looked up; affects no tag
    ├── ContentError                the publisher of the content (``digest``)
    │   ├── SizeMismatch                another number of bytes than the descriptor says
    │   ├── DigestMismatch              other bytes than the digest says
    │   ├── TruncatedBody               the body ended early; temporary
    │   ├── RangeInvalid                a partial response that cannot be joined; temporary
    │   ├── InvalidManifest             not JSON, or a descriptor that breaks the grammar
    │   ├── MediaTypeMismatch           body and header name different manifest types
    │   ├── AmbiguousManifest           can be read as two kinds of manifest
    │   ├── UnsupportedManifest         a kind of manifest that is not enabled (schema 1)
    │   ├── UnsupportedDigest           an algorithm that cannot be verified here
    │   └── LimitExceeded               larger, deeper or more than the configured bound
    ├── DatabaseError               the operator of the metadata database
    │   ├── DatabaseUnavailable         no connection, or it broke; temporary
    │   ├── DatabaseFull                no space left for it
    │   ├── DatabaseOutdated            the schema must be upgraded first
    │   ├── RecordNotFound              no repository, remote, version or run of that name
    │   ├── NameTaken                   a repository or remote of that name exists
    │   ├── VersionConflict             a later sync or a rollback was first
    │   ├── OnlyVersion                 the last version of a repository cannot be deleted
    │   └── VersionServed               a version that a distribution always serves cannot be deleted
    ├── BlobStoreError              the operator of the blob store
    │   ├── BlobStoreUnavailable        it does not respond; temporary
    │   ├── BlobStoreFull               no space left
    │   └── BlobMissing                 the store has no blob of that digest
    └── SyncError                   the owner of the remote or repository
        ├── NothingSynced               every tag that changed is held, or a filter excludes everything
        ├── TooManyHolds                more tags would be held than the remote allows
        ├── ApprovalRequired            a limit of the remote stops the run; it may be approved and continue
        │   ├── TooManyRemovals             a mirror would remove more tags than the remote allows
        │   └── TooFewTags                  the version would have fewer tags than the remote requires
        ├── NothingToApprove            an approval for a run that was not stopped by such a limit
        ├── StagesUnfinished            a stage was skipped, marked by a user or stopped
        ├── MirrorsUnfinished           some of the mirrors of a task failed; the others are done
        ├── RemoteChanged               a run was repeated with other parameters
        ├── OtherUpstream               content of another upstream would replace the existing content
        ├── TriggerRefused              a run was triggered with parameters that exceed a trigger's rights
        └── RunEnded                    a task works for a run that has ended

``is_temporary`` says whether doing the same again later may succeed. It is decided by type here, and for
responses of a registry by :data:`TEMPORARY_STATUSES`; nobody reads messages to find out.

All of them can be pickled, and none holds a secret: URLs are kept without query and user information.
"""

from __future__ import annotations

from typing import Any, ClassVar, TypeVar
from urllib.parse import urlsplit

_Error = TypeVar("_Error", bound="RegistrySyncError")
#: Statuses after which the same request may succeed later (RFC 9110 sections 15.5.9, 15.6; RFC 6585 section 4).
TEMPORARY_STATUSES = frozenset({408, 429, 500, 502, 503, 504})


def redact_url(url: str) -> str:
    """Scheme, host, port and path of ``url``: queries contain signatures, user information contains passwords."""
    try:
        parts = urlsplit(url)
        host = parts.hostname or ""
        port = f":{parts.port}" if parts.port else ""
        # Either no host was found, or the text after it started within a password.
        is_clear = "@" not in parts.path or bool(parts.netloc and not port)
    except ValueError:
        is_clear = False
    if not is_clear:
        return "<unreadable URL>"
    host = f"[{host}]" if ":" in host else host
    return f"{parts.scheme}://{host}{port}{parts.path}" if parts.scheme else f"{host}{port}{parts.path}"


def _rebuild(cls: type[_Error], message: str, state: dict[str, Any]) -> _Error:
    error = cls.__new__(cls, message)
    Exception.__init__(error, message)
    error.__dict__.update(state)
    return error


class RegistrySyncError(Exception):
    """The root. ``str()`` says what happened and what to do; attributes are for programs."""

    is_temporary: bool = False
    #: The host whose redirect led to the failing one; None if the request was sent there directly.
    redirected_by: str | None = None

    def __init__(self, message: str) -> None:
        super().__init__(message)
        self.message = message

    def __reduce__(self) -> tuple[Any, ...]:
        return _rebuild, (type(self), self.message, self.__dict__)

    def with_message(self: _Error, message: str) -> _Error:
        """The same error with another message and the same attributes."""
        return _rebuild(type(self), message, {**self.__dict__, "message": message})


class InvalidReference(RegistrySyncError):
    """A given name, tag, digest, URL or filter does not match its grammar."""


class InvalidNotification(InvalidReference):
    """What was sent to a webhook is not of the form that its kind of registry documents."""


class ConfigurationError(RegistrySyncError):
    """A setting, connection or remote is not usable as it stands; the message names it.

    ``option`` is the option of a remote that does not fit others; None for anything else.
    """

    def __init__(self, message: str, *, option: str | None = None) -> None:
        super().__init__(message)
        self.option = option


class RegistryError(RegistrySyncError):
    """A registry, its token service or a host it redirects to did not respond as required.

    ``host`` is ``host[:port]``; ``repository`` the name on that registry or None; ``method`` and ``url`` the request
    (URL redacted); ``status`` the HTTP status or None when there was no response; ``codes`` the error codes of the
    body, at most three (distribution specification, "Error Codes"); ``retry_after_seconds`` the delay that the registry
    requested, or None; ``is_web_page`` that the response was a web page; ``redirected_by`` the host whose redirects led
    to the responding one, None without a redirect.
    """

    always_temporary: ClassVar[bool] = False

    def __init__(
        self,
        message: str,
        *,
        host: str = "",
        repository: str | None = None,
        method: str | None = None,
        url: str | None = None,
        status: int | None = None,
        codes: tuple[str, ...] = (),
        retry_after_seconds: float | None = None,
        is_web_page: bool = False,
        redirected_by: str | None = None,
    ) -> None:
        super().__init__(message)
        self.host = host
        self.repository = repository
        self.method = method
        self.url = redact_url(url) if url else None
        self.status = status
        self.codes = codes[:3]
        self.retry_after_seconds = retry_after_seconds
        self.is_web_page = is_web_page
        self.redirected_by = redirected_by
        self.is_temporary = self.always_temporary or (status in TEMPORARY_STATUSES)


class NotARegistry(RegistryError):
    """``/v2/`` is missing or its response is not that of the registry API."""


class ChallengeInvalid(RegistryError):
    """A 401 without a ``WWW-Authenticate`` challenge that can be used (RFC 9110 section 11.6.1)."""


class RealmRefused(RegistryError):
    """A challenge requests credentials for a host that the connection does not allow."""


class RedirectRefused(RegistryError):
    """A redirect, link or foreign URL leaves what the policy allows."""


class UntrustedCertificate(RegistryError):
    """The TLS certificate is expired, for another host, or not signed by a trusted CA."""


class AuthenticationFailed(RegistryError):
    """The credentials were rejected. Never retried: repeated bad logins lock accounts."""


class AccessDenied(RegistryError):
    """The credentials are valid and do not allow this, or a host that the registry redirects to refuses it."""


class RepositoryUnavailable(RegistryError):
    """The repository is missing, private or forbidden; the registry does not say which."""


class NotFound(RegistryError):
    """404. ``kind`` is ``repository``, ``manifest`` or ``blob``."""

    def __init__(self, message: str, *, kind: str = "manifest", **context: Any) -> None:
        super().__init__(message, **context)
        self.kind = kind


class RateLimited(RegistryError):
    """429. ``retry_after_seconds`` is the delay that the registry requested, or None.

    ``is_repeated`` says that no request was made: the registry had refused one before, or a budget is used up.
    """

    always_temporary = True
    is_repeated: bool = False


class ServerUnavailable(RegistryError):
    """No response, or one that says to try again later."""

    always_temporary = True


class ProtocolError(RegistryError):
    """A response that the distribution specification does not allow."""


class PaginationError(RegistryError):
    """A listing that repeats itself, makes no progress, breaks off or cannot be read to its end."""


class ReferrersUnavailable(RegistryError):
    """The referrers of a manifest cannot be looked up, so that there may be some or none.

    The request is refused, or redirected to a host that may not be or cannot be accessed. It says nothing about the
    manifest itself.
    """


class ContentError(RegistrySyncError):
    """Content is not what its descriptor says. ``digest`` names it, None before it is known."""

    def __init__(self, message: str, *, digest: str | None = None) -> None:
        super().__init__(message)
        self.digest = digest


class SizeMismatch(ContentError):
    """Another number of bytes than the descriptor says."""

    def __init__(self, message: str, *, digest: str | None = None, expected: int = 0, got: int = 0) -> None:
        super().__init__(message, digest=digest)
        self.expected = expected
        self.got = got


class DigestMismatch(ContentError):
    """The bytes hash to another digest (``got``) than was requested (``digest``)."""

    def __init__(self, message: str, *, digest: str | None = None, got: str = "") -> None:
        super().__init__(message, digest=digest)
        self.got = got


class TruncatedBody(ContentError):
    """The body ended before its size; the received bytes are kept and the download is resumed."""

    is_temporary = True


class RangeInvalid(ContentError):
    """A partial response that does not continue the received bytes (RFC 9110 section 14.4)."""

    is_temporary = True


class InvalidManifest(ContentError):
    """A manifest that is not strict JSON, or whose descriptors break the image specification."""


class MediaTypeMismatch(ContentError):
    """Body and header name different manifest types (CVE-2021-41190)."""


class AmbiguousManifest(ContentError):
    """A document that can be read as two kinds of manifest."""


class UnsupportedManifest(ContentError):
    """A kind of manifest that is not enabled, such as Docker schema 1."""


class UnsupportedDigest(ContentError):
    """A digest algorithm that cannot be verified here."""


class LimitExceeded(ContentError):
    """Larger, deeper or more than the configured bound; ``limit`` names the bound."""

    def __init__(self, message: str, *, digest: str | None = None, limit: str = "") -> None:
        super().__init__(message, digest=digest)
        self.limit = limit


class DatabaseError(RegistrySyncError):
    """The metadata database refused a statement, or is in an invalid state."""


class DatabaseUnavailable(DatabaseError):
    """No connection to the metadata database, or it broke."""

    is_temporary = True


class DatabaseFull(DatabaseError):
    """The metadata database has no space left; stored content stays intact."""


class DatabaseOutdated(DatabaseError):
    """The schema of the metadata database is not the one that this release requires."""


class RecordNotFound(DatabaseError):
    """The metadata database has no record of that name or id."""


class NameTaken(DatabaseError):
    """A repository or remote of that name exists.

    ``field`` is what is taken: the ``name``, or the ``base_path`` of a distribution.
    """

    def __init__(self, message: str, *, field: str = "name") -> None:
        super().__init__(message)
        self.field = field


class VersionConflict(DatabaseError):
    """A commit would undo a rollback, or the result of another sync of the same upstream that listed later."""


class OnlyVersion(DatabaseError):
    """The only version of a repository cannot be deleted; the repository can."""


class VersionServed(DatabaseError):
    """A version cannot be deleted while a distribution is set to serve it."""


class BlobStoreError(RegistrySyncError):
    """The blob store could not perform an operation."""


class BlobStoreUnavailable(BlobStoreError):
    """The blob store does not respond."""

    is_temporary = True


class BlobStoreFull(BlobStoreError):
    """The blob store has no space left; stored content stays intact."""


class BlobMissing(BlobStoreError):
    """The blob store has no blob of that digest."""


class SyncError(RegistrySyncError):
    """A sync cannot continue because of its own parameters or limits."""


class NothingSynced(SyncError):
    """Every tag that changed is held, or a filter excludes everything, so that a version would not differ."""


class TooManyHolds(SyncError):
    """A larger share of the tags would be held than the remote allows; no version was made."""


class ApprovalRequired(SyncError):
    """A limit of the remote stops the run before it makes a version; the same run may be approved and continue.

    ``fingerprint`` is the same for the same ``tags``, names and digests by name; an approval is for these. None if
    unknown. ``approvable`` is what the approval is of, for messages.
    """

    fingerprint: str | None = None
    tags: tuple[tuple[str, str], ...] = ()
    approvable: ClassVar[str] = "the run"
    other: ClassVar[str] = "something else"


class TooManyRemovals(ApprovalRequired):
    """A mirror would remove more tags than its remote allows: ``tags``, which are those of the latest version."""

    approvable = "the removals"
    other = "the removal of other tags, not of these"


class TooFewTags(ApprovalRequired):
    """The version would have fewer tags than its remote requires: ``tags``, which are all that it would have."""

    approvable = "the few tags"
    other = "a version with other tags, not this one"


class NothingToApprove(SyncError):
    """An approval was requested for a run that no limit on its tags had stopped."""


class StagesUnfinished(SyncError):
    """A stage was skipped, marked manually or stopped before it had finished, so that no version is made."""


class MirrorsUnfinished(SyncError):
    """Some of the mirrors of a task did not succeed, and all others are done; a repeat tries these alone.

    ``is_temporary`` says whether a repeat may help any of them, ``retry_after_seconds`` the delay that their registries
    requested, or None.
    """

    retry_after_seconds: float | None = None


class RemoteChanged(SyncError):
    """A run was repeated with parameters other than those it started with."""


class OtherUpstream(SyncError):
    """Another upstream would replace that of a remote, or that of a repository's content."""


class TriggerRefused(SyncError):
    """A run was triggered with parameters that exceed the rights of a trigger."""


class RunEnded(SyncError):
    """A task works for a run that has ended: in a version or unchanged, with its DAG run, or with its repository."""
