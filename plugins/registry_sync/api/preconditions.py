"""Entity tags and preconditions (RFC 9110 section 13): a change that is made only of what its client has seen.

The tag of an object is a hash of its document. A change with ``If-Match`` is compared with the document as it is stored
in the transaction of the change, so that of two clients who read the same, one is told that it came too late.
"""

from __future__ import annotations

import hashlib
import json
from collections.abc import Callable, Mapping
from typing import Annotated, Any, TypeVar

from fastapi import Depends, Request
from starlette.exceptions import HTTPException

from registry_sync.pulp.container_documents import shown
from registry_sync.pulp.documents import Document

T = TypeVar("T")
PRECONDITION_FAILED = 412


def as_bytes(document: Mapping[str, Any]) -> bytes:
    """A document as it is sent."""
    return json.dumps(document, ensure_ascii=False, separators=(",", ":"), allow_nan=False).encode()


def etag_of(document: Mapping[str, Any]) -> str:
    """The entity tag of a document. It does not depend on which credentials Airflow has stored for it."""
    body = as_bytes({name: value for name, value in document.items() if name != "hidden_fields"})
    return f'"{hashlib.sha256(body).hexdigest()[:32]}"'


def is_named(etag: str, header: str | None) -> bool:
    """Whether a header of a precondition names this tag; a weak one is compared without its mark."""
    if header is None:
        return False
    given = [part.strip().removeprefix("W/") for part in header.split(",")]
    return "*" in given or etag in given


class Precondition:
    """The ``If-Match`` of a request; everything matches without one."""

    def __init__(self, header: str | None) -> None:
        self._header = header

    def of(self, document: type[Document]) -> Callable[[Any], None] | None:
        """A check of objects that are shown as ``document``; None where there is nothing to check.

        The check raises 412 for an object that is not as its client has seen it.
        """
        return None if self._header is None else lambda value: self._check(shown(document, value))

    def _check(self, document: Document) -> None:
        etag = etag_of(document.model_dump(mode="json", by_alias=True))
        if not is_named(etag, self._header):
            raise HTTPException(PRECONDITION_FAILED, "It has changed since it was read: read it again.", {"ETag": etag})


async def _precondition(request: Request) -> Precondition:
    return Precondition(request.headers.get("if-match"))


#: The precondition of a change.
IfMatch = Annotated[Precondition, Depends(_precondition)]
