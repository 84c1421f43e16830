"""Pages of tags, in the many ways in which registries name the next one."""

from __future__ import annotations

import bisect
import json
from typing import Any
from urllib.parse import parse_qs, quote

from support.hostile_registry import Raw, Request, errors_reply, reply
from support.images import RepositoryContent
from support.lookalikes.quirks import Habit, LookAlike
from support.lookalikes.witness import Witness


class TagLister:
    """Serves ``tags/list`` of one repository; ``base`` is the registry's URL."""

    def __init__(self, kind: LookAlike, content: RepositoryContent, base: str, witness: Witness) -> None:
        self._kind = kind
        self._pages = kind.tags
        self._content = content
        self._base = base
        self._witness = witness
        self._names = list(content.tags) if kind.tags.keeps_order else sorted(content.tags)
        self._has_vanished = False
        self._refusals = 0

    def response(self, request: Request) -> Raw:
        """A page, or what this registry responds in its place."""
        query = {name: values[0] for name, values in parse_qs(request.query).items()}
        size = int(query["n"]) if "n" in query else self._pages.cap
        if size > self._pages.cap and self._pages.refuses_above_cap:
            self._refusals += 1
            self._witness.met(Habit.REFUSES_PAGE_SIZES)
            if self._refusals > 1:
                self._witness.note(f"n={size} asked for again after it was refused")
            return errors_reply(405, "UNSUPPORTED", f"Member must have value less than or equal to {self._pages.cap}")
        start = self._start(query.get(self._pages.parameter))
        if start:
            self._witness.met(Habit.LISTS_IN_PAGES)
        if start is None or (start and self._vanishes()):
            return errors_reply(404, "NAME_UNKNOWN", "repository name not known to registry")
        if start == 0:
            self._refusals = 0
            if self._pages.odd_names:
                self._witness.met(Habit.LISTS_ODD_NAMES)
        names = self._names[start : start + min(size, self._pages.cap)]
        end = start + len(names)
        headers = [("Link", self._link(names, end))] if end < len(self._names) and self._pages.link != "none" else []
        document = {"name": self._kind.repository, "tags": [*(self._pages.odd_names if start == 0 else ()), *names]}
        document |= self._google_map() if self._pages.has_manifest_map else {}
        return reply(200, json.dumps(document), headers, content_type=self._pages.content_type)

    def _start(self, position: str | None) -> int | None:
        """The index at which the page starts, None for a position that leads nowhere."""
        if position is None:
            return 0
        if self._pages.position == "number":
            return int(position) if position.isdigit() else None
        if self._pages.position == "opaque":
            return int(position.removeprefix("op+aque/"), 16) if position.startswith("op+aque/") else None
        if self._pages.keeps_order or self._pages.vanishes_once:
            return self._names.index(position) + 1 if position in self._names else None
        return bisect.bisect_right(self._names, position)

    def _vanishes(self) -> bool:
        """Whether the tag that this page continues from is missing for now."""
        vanishes = self._pages.vanishes_once and not self._has_vanished
        if vanishes:
            self._has_vanished = True
            self._witness.met(Habit.LOSES_A_PAGE)
        return vanishes

    def _link(self, names: list[str], end: int) -> str:
        position = {"tag": names[-1], "number": str(end), "opaque": f"op+aque/{end:x}"}[self._pages.position]
        name = self._kind.repository
        path = {
            "connector": f"/repository/docker/v2/{name}/tags/list",
            "shortened": f"/v2/{name.partition('/')[2]}/tags/list",
            "absolute": f"{self._base}/v2/{name}/tags/list",
        }.get(self._pages.link, f"/v2/{name}/tags/list")
        return f'<{path}?n={len(names)}&{self._pages.parameter}={quote(position, safe="")}>; rel="next"'

    def _google_map(self) -> dict[str, Any]:
        manifests = {
            digest: {
                "mediaType": manifest.media_type,
                "tag": [name for name, tagged in self._content.tags.items() if tagged == digest],
                "timeUploadedMs": "1767225600000",
            }
            for digest, manifest in self._content.manifests.items()
        }
        return {"child": ["other"], "manifest": manifests}
