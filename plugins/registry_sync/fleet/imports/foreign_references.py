"""Image references and times as other tools write them: short names of Docker Hub, durations and crons of Go."""

from __future__ import annotations

import re
from typing import NamedTuple

from registry_sync.domain.known_registries import DOCKER_HUB_HOST

_GO_PART = re.compile(r"(\d+(?:\.\d*)?|\.\d+)(ns|us|µs|ms|s|m|h)")
_GO_SECONDS = {"ns": 1e-9, "us": 1e-6, "µs": 1e-6, "ms": 1e-3, "s": 1, "m": 60, "h": 3600}
#: Presets of Go's cron that Airflow has under other names.
_PRESETS = {"@midnight": "@daily", "@annually": "@yearly"}
#: The shortest interval of a schedule here.
LEAST_SECONDS = 60


class ImageReference(NamedTuple):
    """``tag`` and ``digest`` are None where the reference has none."""

    host: str
    path: str
    tag: str | None
    digest: str | None

    @property
    def source(self) -> str:
        """What ``mirrors.yaml`` has as source."""
        return f"{self.host}/{self.path}"


def parse_image(text: str) -> ImageReference:
    """``alpine:3.20``, ``quay.io/a/b@sha256:…``; a name without a registry is one of Docker Hub."""
    name, at, digest = text.removeprefix("docker://").partition("@")
    before, colon, tag = name.rpartition(":")
    if colon and "/" not in tag:
        name = before
    else:
        tag = ""
    first, slash, rest = name.partition("/")
    is_host = bool(slash) and ("." in first or ":" in first or first == "localhost" or first.startswith("${"))
    host, path = (first, rest) if is_host else (DOCKER_HUB_HOST, name)
    return ImageReference(host, official_path(host, path), tag or None, digest if at else None)


def registry_of_url(url: str) -> str:
    """The registry of a URL as sources have it: its host, with ``http://`` for a plain one, and without a login."""
    scheme, _, rest = url.strip().rpartition("://")
    host = rest.partition("/")[0].rpartition("@")[2]
    return f"http://{host}" if scheme == "http" else host


def official_path(host: str, path: str) -> str:
    """The path of a repository; on Docker Hub a name alone is below ``library``."""
    return f"library/{path}" if host == DOCKER_HUB_HOST and path and "/" not in path else path


def go_seconds(text: str) -> int | None:
    """The seconds of a duration of Go, such as ``1h30m``; None for other texts."""
    if not text or _GO_PART.sub("", text):
        return 0 if text == "0" else None
    return round(sum(float(number) * _GO_SECONDS[unit] for number, unit in _GO_PART.findall(text)))


def interval(seconds: int) -> str:
    """An interval as schedules have it, such as ``6h``; at least a minute."""
    seconds = max(seconds, LEAST_SECONDS)
    parts = []
    for unit, size in (("h", 3600), ("m", 60), ("s", 1)):
        count, seconds = divmod(seconds, size)
        if count:
            parts.append(f"{count}{unit}")
    return "".join(parts)


def go_cron(text: str) -> dict[str, str]:
    """The keys ``schedule`` and ``timezone`` for a cron of Go: five fields, ``@daily``, ``@every 1h``, ``CRON_TZ=``."""
    found = re.fullmatch(r"(?:CRON_)?TZ=(\S+)\s+(.+)", text.strip())
    zone, cron = (found[1], found[2]) if found else ("", text.strip())
    every = re.fullmatch(r"@every\s+(\S+)", cron)
    seconds = go_seconds(every[1]) if every else None
    schedule = _PRESETS.get(cron, cron) if seconds is None else interval(seconds)
    return {"schedule": schedule, **({"timezone": zone} if zone and zone != "Local" else {})}
