"""Lists of the digests of all tags, by the APIs that registries have for it beside the specification's."""

from __future__ import annotations

import math
from collections.abc import Mapping
from typing import Any
from urllib.parse import parse_qs, quote

from registry_sync.domain.digests import Digest
from registry_sync.domain.known_registries import DigestList
from support.hostile_registry import Raw, Request, errors_reply, json_reply
from support.images import RepositoryContent
from support.lookalikes.quirks import LookAlike
from support.lookalikes.tokens import Gate
from support.lookalikes.witness import Witness

#: What Docker Hub gives readers without a login: the first thousand tags, fewer here.
HUB_PAGES = 2
_SIZES = {DigestList.QUAY: 100, DigestList.HARBOR: 100, DigestList.DOCKER_HUB: 100}
#: Linked pages are smaller than the real ones, so that there are several.
_LINKED_SIZE = 60


class DigestLister:
    """The API of one look-alike. ``requests`` are those it got; ``failure`` is sent in place of the first list.

    ``frozen`` is the content that is listed, whatever is served meanwhile; None for the content itself.
    """

    def __init__(self, kind: LookAlike, gate: Gate, witness: Witness) -> None:
        self.requests: list[Request] = []
        self.failure: Raw | None = None
        self.frozen: RepositoryContent | None = None
        self._kind = kind
        self._gate = gate
        self._witness = witness
        first, _, rest = kind.repository.partition("/")
        twice = quote(quote(rest, safe=""), safe="")
        self._project = f"/api/v2.0/projects/{first}"
        self._path = {
            None: "",
            DigestList.QUAY: f"/api/v1/repository/{kind.repository}/tag/",
            DigestList.GITLAB: f"/gitlab/v1/repositories/{kind.repository}/tags/list/",
            DigestList.AZURE: f"/acr/v1/{kind.repository}/_tags",
            DigestList.HARBOR: f"{self._project}/repositories/{twice}/artifacts",
            DigestList.ZOT: "/v2/_zot/ext/search",
            DigestList.DOCKER_HUB: f"/v2/namespaces/{first}/repositories/{quote(rest, safe='')}/tags",
        }[kind.digests.source]

    def response(self, request: Request, content: RepositoryContent, *, is_elsewhere: bool) -> Raw | None:
        """The response to a request for the list, None for any other request."""
        source = self._kind.digests.source
        is_project = source is DigestList.HARBOR and request.path == self._project
        if source is None or is_elsewhere != self._kind.digests.is_elsewhere:
            return None
        if request.path != self._path and not is_project:
            return None
        self.requests.append(request)
        if (refused := self._refused(request)) is not None:
            return refused
        if is_project:
            return json_reply({"name": self._project, "registry_id": None})
        return self.failure or self._page(request, (self.frozen or content).tags)

    def _refused(self, request: Request) -> Raw | None:
        """What a request with another authorization than this API knows gets."""
        authorization = request.header("authorization")
        source, name = self._kind.digests.source, self._kind.repository
        if source in (DigestList.QUAY, DigestList.DOCKER_HUB):
            if authorization is not None:
                self._witness.note(f"Authorization sent to the API of {self._kind}")
                return json_reply({"message": "invalid_token"}, 401)
            return None
        if source is DigestList.HARBOR:
            is_known = authorization == self._gate.basic
            return None if is_known else errors_reply(401, "UNAUTHORIZED", "unauthorized")
        if source is DigestList.AZURE:
            is_known = authorization is not None and self._gate.admits_actions(request, name, "metadata_read")
        else:
            is_known = self._gate.admits(request, name)
        return None if is_known else self._gate.challenge(name)

    def _page(self, request: Request, tags: Mapping[str, Digest]) -> Raw:
        source = self._kind.digests.source
        query = {name: values[0] for name, values in parse_qs(request.query).items()}
        if source is DigestList.ZOT:
            found = [{"Tag": name, "Digest": digest} for name, digest in tags.items()]
            return json_reply({"data": {"ImageList": {"Results": found}}})
        if source in _SIZES:
            return self._numbered(int(query["page"]), tags)
        names = sorted(name for name in tags if name > query.get("last", ""))
        page = names[:_LINKED_SIZE]
        entries = [{"name": name, "digest": tags[name]} for name in page]
        link = f'<{self._path}?n={_LINKED_SIZE}&last={page[-1]}>; rel="next"' if len(names) > len(page) else ""
        document: Any = (
            entries if source is DigestList.GITLAB else {"imageName": self._kind.repository, "tags": entries}
        )
        return json_reply(document, headers=[("Link", link)] if link else [])

    def _numbered(self, number: int, tags: Mapping[str, Digest]) -> Raw:
        source = self._kind.digests.source
        if source is DigestList.HARBOR:
            images: dict[str, list[str]] = {}
            for name, digest in tags.items():
                images.setdefault(digest, []).append(name)
            found: list[Any] = [
                {"digest": digest, "tags": [{"name": name} for name in names]} for digest, names in images.items()
            ]
        else:
            key = "manifest_digest" if source is DigestList.QUAY else "digest"
            found = [{"name": name, key: digest} for name, digest in reversed(list(tags.items()))]
        size = _SIZES[DigestList(source)]
        page, page_count = found[(number - 1) * size : number * size], math.ceil(len(found) / size)
        if source is DigestList.HARBOR:
            return json_reply(page)
        if source is DigestList.QUAY:
            return json_reply({"tags": page, "page": number, "has_additional": number < page_count})
        if number > HUB_PAGES:
            return json_reply({"message": "pagination offset too large for anonymous requests"}, 403)
        following = "https://hub.docker.com/elsewhere" if number < page_count else None
        return json_reply({"count": len(found), "next": following, "results": page})
