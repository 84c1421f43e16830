"""Requests while the pull server stops, and its stop without any."""

from __future__ import annotations

import asyncio
import http.client
from collections.abc import Iterator

import pytest

from registry_sync.serve.stopping import refusing, reserve_port


@pytest.fixture
def other_loop() -> Iterator[None]:
    """The loop that the process has already, as where Airflow's commands run."""
    loop = asyncio.new_event_loop()
    asyncio.set_event_loop(loop)
    yield
    asyncio.set_event_loop(None)
    loop.close()


@pytest.mark.usefixtures("other_loop")
@pytest.mark.parametrize("requests", [0, 2])
def test_a_server_stops_quietly_whether_somebody_came_meanwhile_or_not(requests: int) -> None:
    reserved = reserve_port("127.0.0.1", 0)
    port = reserved.getsockname()[1]
    with refusing(reserved):
        for _ in range(requests):
            connection = http.client.HTTPConnection("127.0.0.1", port, timeout=20)
            connection.request("GET", "/v2/")
            assert connection.getresponse().status == 503
            connection.close()
    with pytest.raises(ConnectionRefusedError):
        http.client.HTTPConnection("127.0.0.1", port, timeout=20).connect()
