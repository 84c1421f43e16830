"""The access log: one line a request, of what people need and of nothing that is secret."""

from __future__ import annotations

import json
import os
from pathlib import Path
from typing import Any

import pytest

from registry_sync.errors import ConfigurationError
from registry_sync.serve.access_log import AccessLog
from unit.serve.conftest import PullDesk, client
from unit.serve.test_logins import ANNA, Users
from unit.serve.test_metrics import PULL


def _lines(path: Path) -> list[dict[str, Any]]:
    return [json.loads(line) for line in path.read_text().splitlines()]


def test_a_request_is_one_line_that_says_who_pulled_what(desk: PullDesk, tmp_path: Path) -> None:
    path = tmp_path / "access.jsonl"
    _, secret = desk.database.robots.create("ci", ["team/*"])
    log = AccessLog(str(path))

    async def story() -> str:
        app = desk.make(observers=[log.write], closing=[log.close], users=Users())
        async with client(app) as http:
            found = await http.get("/v2/team/private/manifests/latest", auth=("ci", secret))
            token = (await http.get("/v2/token?scope=repository:team/private:pull", auth=ANNA)).json()["token"]
            bearer = {"Authorization": f"Bearer {token}", "User-Agent": "a client/1.0"}
            await http.head("/v2/team/private/manifests/latest", headers=bearer)
            await http.get("/v2/team/private/manifests/none", headers=bearer)
            await http.get("/v2/team/private/tags/list", auth=("ci", "wrong"))
            await http.get("/elsewhere?token=hush")
        app.close()
        return str(found.headers["Docker-Content-Digest"])

    digest = desk.play(story())
    text = path.read_text()
    by_robot, _, by_user, missing, wrong, elsewhere = _lines(path)
    assert by_robot["time"].endswith("+00:00")
    assert 0 < by_robot["seconds"] < 60
    assert {name: by_robot[name] for name in by_robot if name not in ("time", "seconds", "bytes", "user_agent")} == {
        "method": "GET",
        "kind": "manifests",
        "name": "team/private",
        "reference": "latest",
        "digest": digest,
        "status": 200,
        "account": "robot:ci",
        "address": "192.0.2.1",
    }
    assert by_robot["bytes"] > 100
    assert (by_user["account"], by_user["user_agent"], by_user["bytes"]) == ("user:anna", "a client/1.0", 0)
    assert (missing["status"], missing["code"]) == (404, "MANIFEST_UNKNOWN")
    assert (wrong["status"], wrong["code"], "account" in wrong) == (401, "UNAUTHORIZED", False)
    assert (elsewhere["path"], elsewhere["kind"]) == ("/elsewhere", "other")
    for hidden in (secret, ANNA[1], "hush", "eyJ", "Bearer", "Basic"):
        assert hidden not in text


def test_what_a_client_writes_stays_one_bounded_line(tmp_path: Path) -> None:
    from dataclasses import replace

    path = tmp_path / "access.jsonl"
    log = AccessLog(str(path))
    log.write(replace(PULL, reference="x\n{}" * 500, user_agent='"\x00\u2028'))
    log.close()
    (line,) = _lines(path)
    assert len(line["reference"]) == 300
    assert len(path.read_bytes().splitlines()) == 1


def test_it_is_appended_to_and_is_its_owners_alone(tmp_path: Path) -> None:
    path = tmp_path / "access.jsonl"
    for _ in range(2):
        log = AccessLog(str(path))
        log.write(PULL)
        log.close()
    assert len(_lines(path)) == 2
    assert path.stat().st_mode & 0o777 == 0o600


def test_a_reader_that_stands_still_stops_no_request_and_is_told_what_was_left_out(tmp_path: Path) -> None:
    pipe = tmp_path / "pipe"
    os.mkfifo(pipe)
    reader = os.open(pipe, os.O_RDONLY | os.O_NONBLOCK)
    log = AccessLog(str(pipe), waiting_lines=50)
    count = 5000
    for _ in range(count):
        log.write(PULL)
    os.set_blocking(reader, True)
    text = os.read(reader, 1 << 16)
    while text.count(b"\n") and b"left_out" not in text:
        log.write(PULL)
        count += 1
        text += os.read(reader, 1 << 16)
    os.set_blocking(reader, False)
    left_out = sum(json.loads(line)["left_out"] for line in text.splitlines() if b"left_out" in line)
    assert 0 < left_out < count
    os.close(reader)
    log.close()


def test_a_file_that_cannot_be_written_is_said_before_the_server_starts(tmp_path: Path) -> None:
    with pytest.raises(ConfigurationError, match="access log"):
        AccessLog(str(tmp_path / "missing" / "access.jsonl"))


def test_a_full_disk_is_said_once_and_stops_no_request(caplog: pytest.LogCaptureFixture) -> None:
    log = AccessLog("/dev/full")
    for _ in range(20):
        log.write(PULL)
    log.close()
    assert caplog.text.count("the access log cannot be written: No space left on device") == 1
