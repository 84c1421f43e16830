"""The errors for statuses and error codes of responses (distribution specification, "Error Codes").

The status decides and codes refine. The text of a message is never interpreted.
"""

from __future__ import annotations

import contextlib
import json
import re
from collections.abc import Callable
from dataclasses import dataclass
from email.utils import parsedate_to_datetime
from typing import Any

from registry_sync.errors import (
    TEMPORARY_STATUSES,
    AccessDenied,
    NotFound,
    ProtocolError,
    RateLimited,
    RegistryError,
    RegistrySyncError,
    RepositoryUnavailable,
    ServerUnavailable,
)
from registry_sync.oci.http.origins import Target
from registry_sync.oci.http.responses import Response, web_page

#: A longer wait is a mistake, such as seconds since 1970 in place of a duration.
LONGEST_BELIEVED_SECONDS = 24 * 3600.0


def parse_retry_after(value: str | None, now: float) -> float | None:
    """Seconds to wait from ``now`` (seconds since 1970); None when the value is absent, past or implausible.

    Reads seconds, a date, and seconds since 1970, which some registries send.
    """
    text = (value or "").strip()
    if re.fullmatch(r"[0-9]{1,12}(?:\.[0-9]{1,6})?", text):
        seconds = float(text)
        if seconds > LONGEST_BELIEVED_SECONDS:
            seconds -= now
    else:
        try:
            seconds = parsedate_to_datetime(text).timestamp() - now
        except (TypeError, ValueError, OverflowError, IndexError):
            return None
    return seconds if 0 < seconds <= LONGEST_BELIEVED_SECONDS else None


MAX_ERROR_BYTES = 64 * 1024
MAX_MESSAGE_LENGTH = 500
#: An Authorization of this size may be why a request was refused: servers accept 8 KiB of headers, some less.
LARGE_AUTHORIZATION_BYTES = 4 * 1024
#: Bad Request, Content Too Large, Request Header Fields Too Large, and nginx's own status for the last.
_TOO_LARGE_STATUSES = frozenset({400, 413, 431, 494})
_KINDS = {"NAME_UNKNOWN": "repository", "MANIFEST_UNKNOWN": "manifest", "BLOB_UNKNOWN": "blob"}
#: Error codes that only a registry sends (distribution specification, "Error Codes"). Other servers also send
#: DENIED, UNAUTHORIZED, UNSUPPORTED and TOOMANYREQUESTS.
_CODES_OF_REGISTRIES = frozenset(
    {
        "BLOB_UNKNOWN",
        "BLOB_UPLOAD_INVALID",
        "BLOB_UPLOAD_UNKNOWN",
        "DIGEST_INVALID",
        "MANIFEST_BLOB_UNKNOWN",
        "MANIFEST_INVALID",
        "MANIFEST_UNKNOWN",
        "NAME_INVALID",
        "NAME_UNKNOWN",
        "SIZE_INVALID",
    }
)
#: The code in an object store's error; the rest of the document may include a signature.
_XML_CODE = re.compile(r"<Error>.*<Code>([A-Za-z0-9._-]{1,64})</Code>", re.DOTALL)
_CODE = re.compile(r"[A-Za-z0-9_-]{1,64}")


@dataclass(frozen=True)
class RequestContext:
    """The object of a request: ``kind`` is ``manifest``, ``blob``, ``repository``, ``catalog`` or ``registry``."""

    kind: str
    repository: str | None = None
    subject: str = ""

    def __str__(self) -> str:
        of = f" of {self.repository}" if self.repository and self.kind != "repository" else ""
        return f"{self.kind} {self.subject or self.repository or ''}{of}".replace("  ", " ").strip()


def read_error_body(response: Response) -> tuple[tuple[str, ...], str]:
    """At most three codes and a printable message of an error, both empty without a readable body. Consumes it."""
    data = _error_data(response)
    return parse_error_body(data)


def _error_data(response: Response) -> bytes:
    """The start of an error's body, as far as it is read; empty when it is encoded."""
    data = b""
    if response.method != "HEAD":
        with contextlib.suppress(RegistrySyncError):
            for chunk in response.chunks():
                data += chunk
                if len(data) > MAX_ERROR_BYTES:
                    response.abandon()
                    break
    response.discard()
    return b"" if response.content_encodings else data


def parse_error_body(data: bytes) -> tuple[tuple[str, ...], str]:
    """Codes and message of a body in the specification's form; else no codes and the text, or a web page's title."""
    text = data[:MAX_ERROR_BYTES].decode("utf-8", "replace")
    try:
        document = json.loads(text)
    except (ValueError, RecursionError):
        document = None
    errors = document.get("errors") if isinstance(document, dict) else None
    entries = [entry for entry in errors if isinstance(entry, dict)][:3] if isinstance(errors, list) else []
    codes = tuple(code for entry in entries if isinstance(code := entry.get("code"), str) and _CODE.fullmatch(code))
    messages = [message for entry in entries if isinstance(message := entry.get("message"), str)]
    if not entries and (page := web_page(data, None)) is not None:
        messages = [page]
    elif not entries and (code := _XML_CODE.search(text)):
        messages = [code[1]]
    elif not entries and not text.lstrip().startswith("<"):
        messages = [text]
    return codes, printable("; ".join(messages))


def printable(text: str) -> str:
    """``text`` on one line, without control characters, of bounded length."""
    kept = "".join(character if character.isprintable() else " " for character in text[: 4 * MAX_MESSAGE_LENGTH])
    return " ".join(kept.split())[:MAX_MESSAGE_LENGTH]


@dataclass(frozen=True)
class Refusal:
    """An error response that has been read: the input of :func:`error_of_refusal`."""

    target: Target
    method: str
    status: int
    codes: tuple[str, ...] = ()
    message: str = ""
    retry_after_seconds: float | None = None
    redirected_by: str | None = None
    authorization_bytes: int = 0
    is_web_page: bool = False


def error_of(
    response: Response, request_context: RequestContext, *, is_anonymous: bool, now: float, scrub: Callable[[str], str]
) -> RegistryError:
    """The error for ``response``, whose body is read. ``scrub`` removes secrets that a server echoes."""
    retry_after = parse_retry_after(response.header("Retry-After"), now)
    data = _error_data(response)
    codes, message = parse_error_body(data)
    refusal = Refusal(
        response.target,
        response.method,
        response.status,
        codes,
        scrub(message),
        retry_after,
        response.redirected_by,
        response.authorization_bytes,
        web_page(data, response.header("Content-Type")) is not None,
    )
    return error_of_refusal(refusal, request_context, is_anonymous=is_anonymous)


def error_of_refusal(refusal: Refusal, request_context: RequestContext, *, is_anonymous: bool) -> RegistryError:
    """The error by status: missing, rate limited, temporary, forbidden, or outside the specification."""
    host, status, codes = refusal.target.origin.netloc, refusal.status, refusal.codes
    said = f": {refusal.message}" if refusal.message else f" ({', '.join(codes)})" if codes else ""
    context: dict[str, Any] = {
        "host": host,
        "repository": request_context.repository,
        "method": refusal.method,
        "url": refusal.target.url,
        "status": status,
        "codes": codes,
        "retry_after_seconds": refusal.retry_after_seconds,
        "is_web_page": refusal.is_web_page,
        "redirected_by": refusal.redirected_by,
    }
    if refusal.redirected_by is not None:
        said += f"; {refusal.redirected_by} redirects there"
    if status == 404:
        kind = next((_KINDS[code] for code in codes if code in _KINDS), request_context.kind)
        return NotFound(f"{host} has no {request_context}{said}", kind=kind, **context)
    if status == 429:
        return RateLimited(f"{host} allows no more requests for now{said}", **context)
    if status in TEMPORARY_STATUSES:
        return ServerUnavailable(f"{host} responds {status} for {request_context}{said}", **context)
    if status in (401, 403):
        if is_anonymous and refusal.redirected_by is None:
            message = unavailable_message(host, request_context, status, said, is_anonymous=True)
            return RepositoryUnavailable(message, **context)
        # A host after a redirect received no credentials and knows no repositories: it says nothing about either.
        is_own = refusal.redirected_by is None
        message = (
            denied_message(host, request_context, said)
            if is_own
            else f"{host} refuses {request_context} with {status}{said}"
        )
        return AccessDenied(message, **context)
    if status in _TOO_LARGE_STATUSES and refusal.authorization_bytes >= LARGE_AUTHORIZATION_BYTES:
        said += (
            f"; the Authorization of the request had {refusal.authorization_bytes / 1024:.0f} KiB, which may be more "
            "than it accepts"
        )
    return ProtocolError(f"{host} responds {status} for {request_context}{said}", **context)


def speaks_for_a_registry(problem: RegistryError) -> bool:
    """Whether an error has a code that only registries send."""
    return not _CODES_OF_REGISTRIES.isdisjoint(problem.codes)


def denied_message(host: str, request_context: RequestContext, said: str) -> str:
    """The message for a refusal of an authenticated reader; some registries also refuse what does not exist."""
    message = f"{host} does not allow these credentials to read {request_context}{said}"
    return f"{message}; or it does not exist there" if request_context.repository else message


def unavailable_message(
    host: str, request_context: RequestContext, status: int, said: str, *, is_anonymous: bool
) -> str:
    """The message with every possible reason for refusing an anonymous or partly authorized reader."""
    if is_anonymous:
        return (
            f"{host} refuses {request_context} with {status} to anonymous readers{said}: "
            "it does not exist there, or it is "
            "private"
        )
    return (
        f"{host} refuses {request_context} with {status}{said}: it does not exist there, it is private, "
        "or the credentials of the connection do not reach it"
    )
