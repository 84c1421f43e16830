"""The pull server of an instance, as a container client sees it."""

from __future__ import annotations

import http.client
import json
import urllib.parse
from typing import Any

from local_airflow.ports import LOOPBACK

DEFAULT_PORT = 5050
TIMEOUT_SECONDS = 10
#: What is shown of several base paths.
_FIRST = ("hello-world", "sample/hello-world")


class PullServer:
    """The server at ``port``, asked by nobody in particular: it shows what is public."""

    def __init__(self, port: int) -> None:
        self.port = port
        self.url = f"http://{LOOPBACK}:{port}"

    def is_ready(self) -> bool:
        """Whether it responds, its database included."""
        return self._get("/v2/token") is not None

    def command(self, base_path: str | None = None) -> str | None:
        """The ``docker pull`` of an image that it serves, under ``base_path`` if given; None without one."""
        paths = [base_path] if base_path else (self._get("/v2/_catalog") or {}).get("repositories", [])
        for path in sorted(paths, key=lambda path: (path not in _FIRST, path)):
            found = self._get(f"/v2/{urllib.parse.quote(path)}/tags/list") or {}
            tags = found.get("tags") or []
            if tags:
                return f"docker pull {LOOPBACK}:{self.port}/{path}:{'latest' if 'latest' in tags else tags[0]}"
        return None

    def _get(self, path: str) -> Any:
        """The document at ``path``; None when it cannot be had."""
        connection = http.client.HTTPConnection(LOOPBACK, self.port, timeout=TIMEOUT_SECONDS)
        try:
            connection.request("GET", path)
            response = connection.getresponse()
            data = response.read()
            return json.loads(data) if response.status == http.client.OK else None
        except (OSError, http.client.HTTPException, ValueError):
            return None
        finally:
            connection.close()
