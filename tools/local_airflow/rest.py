"""A small client of Airflow's REST API."""

from __future__ import annotations

import http.client
import json
import time
import urllib.error
import urllib.parse
import urllib.request
from collections.abc import Iterator, Mapping
from typing import Any

from local_airflow.errors import ApiError

#: Airflow's API, and that of this project.
AIRFLOW, PULP = "/api/v2", "/pulp/api/v3"
PAGE_SIZE = 100
#: The pauses between tries of a request that only reads.
PAUSES_SECONDS = (0.2, 0.5, 1, 2)


#: Longer than Airflow waits for a lock of its SQLite, so that a slow request is not reported as failed.
TIMEOUT_SECONDS = 90


class AirflowApi:
    """Airflow's REST API at ``url``. It authenticates at the first request. Every refusal is an :class:`ApiError`."""

    def __init__(self, url: str, username: str, password: str, timeout_seconds: float = TIMEOUT_SECONDS) -> None:
        self.url = url
        self._username = username
        self._password = password
        self._timeout_seconds = timeout_seconds
        self._token: str | None = None
        self._opener = urllib.request.build_opener(urllib.request.ProxyHandler({}))

    def token(self) -> str:
        """A new bearer token."""
        response = self._send("POST", "/auth/token", {"username": self._username, "password": self._password}, {})
        return str(response["access_token"])

    def request(
        self, method: str, path: str, body: Any = None, query: Mapping[str, Any] | None = None, *, below: str = AIRFLOW
    ) -> Any:
        """The decoded JSON response to a request for ``path`` below that of an API; None for an empty one.

        Reads are retried when the server is too busy to respond, as one on SQLite may briefly be.
        """
        if self._token is None:
            self._token = self.token()
        target = f"{below}{path}" + (f"?{urllib.parse.urlencode(query)}" if query else "")
        for pause_seconds in PAUSES_SECONDS if method == "GET" else ():
            try:
                return self._send(method, target, body, {"Authorization": f"Bearer {self._token}"})
            except ApiError as error:
                if error.status is not None and error.status < 500:
                    raise
            time.sleep(pause_seconds)
        return self._send(method, target, body, {"Authorization": f"Bearer {self._token}"})

    def every(self, path: str, key: str) -> Iterator[dict[str, Any]]:
        """The entries of all pages of a listing, in its order."""
        offset = 0
        while True:
            page = self.request("GET", path, query={"limit": PAGE_SIZE, "offset": offset})
            yield from page[key]
            offset += len(page[key])
            if not page[key] or offset >= page["total_entries"]:
                return

    def every_document(self, path: str) -> Iterator[dict[str, Any]]:
        """The entries of all pages of a listing of this project's API."""
        offset, has_more = 0, True
        while has_more:
            page = self.request("GET", path, query={"limit": PAGE_SIZE, "offset": offset}, below=PULP)
            yield from page["results"]
            offset += len(page["results"])
            has_more = page["next"] is not None

    def health(self) -> dict[str, str]:
        """The ``status`` of each component by its name, such as ``scheduler``."""
        response = self._send("GET", "/api/v2/monitor/health", None, {})
        return {name: str(part.get("status")) for name, part in response.items() if isinstance(part, dict)}

    def warm_up(self) -> None:
        """Makes the server load the API of the tasks, for which the first task would otherwise wait some seconds."""
        self._send("GET", "/execution/health", None, {})

    def _send(self, method: str, target: str, body: Any, headers: Mapping[str, str]) -> Any:
        request = urllib.request.Request(  # noqa: S310  the URL is the instance's own
            self.url + target,
            data=None if body is None else json.dumps(body).encode(),
            headers={"Accept": "application/json", "Content-Type": "application/json", **headers},
            method=method,
        )
        try:
            with self._opener.open(request, timeout=self._timeout_seconds) as response:
                data = response.read()
        except urllib.error.HTTPError as error:
            with error:
                raise ApiError(f"{method} {target}: {error.code} {_detail(error.read())}", error.code) from None
        except (OSError, http.client.HTTPException) as error:
            raise ApiError(f"{method} {self.url}{target}: {error}") from None
        return json.loads(data) if data else None


def quote(text: str) -> str:
    """``text`` as one segment of a path."""
    return urllib.parse.quote(text, safe="")


def _detail(body: bytes) -> str:
    """The message of an error response, in one line."""
    try:
        detail = json.loads(body)["detail"]
    except (ValueError, KeyError, TypeError):
        return body.decode(errors="replace")[:300]
    return detail if isinstance(detail, str) else json.dumps(detail)
