"""Logins of Airflow's users, with Airflow's responses made up; real ones are asked in the suites that start Airflow."""

from __future__ import annotations

import asyncio
import json

import httpx
import pytest

from registry_sync.domain.serving import User
from registry_sync.users.airflow_logins import AirflowLogins, LoginUnavailable, RememberedLogins

URL = "http://airflow.example/base/"


class Airflow:
    """Answers as Airflow does; ``asked`` are the requests."""

    def __init__(self, *, login: int = 201, reading: int = 200, body: object = None) -> None:
        self.login, self.reading = login, reading
        self.body = {"access_token": "a.b.c"} if body is None else body
        self.asked: list[httpx.Request] = []

    async def __call__(self, request: httpx.Request) -> httpx.Response:
        self.asked.append(request)
        if request.url.path == "/base/auth/token":
            return httpx.Response(self.login, json=self.body)
        return httpx.Response(self.reading, json={})

    def user(self) -> User | None:
        logins = AirflowLogins(URL, httpx.MockTransport(self))
        return asyncio.run(logins("anna", "her password"))


def test_a_user_is_asked_for_with_the_password_and_then_with_a_token_what_they_read() -> None:
    airflow = Airflow()
    assert airflow.user() == User("anna", is_reader=True)
    login, reading = airflow.asked
    assert json.loads(login.content) == {"username": "anna", "password": "her password"}
    assert (login.method, reading.method) == ("POST", "GET")
    assert reading.url.path == "/base/pulp/api/v3/distributions/docker/docker/"
    assert reading.headers["Authorization"] == "Bearer a.b.c"
    assert "her password" not in str(reading.url) + str(login.url)


def test_a_user_without_the_right_to_read_is_logged_in_and_reads_nothing() -> None:
    assert Airflow(reading=403).user() == User("anna", is_reader=False)


@pytest.mark.parametrize("status", [400, 401, 403])
def test_a_login_that_airflow_refuses_is_wrong(status: int) -> None:
    airflow = Airflow(login=status)
    assert airflow.user() is None
    assert len(airflow.asked) == 1


@pytest.mark.parametrize(
    "unclear",
    [
        Airflow(login=404),  # an auth manager without passwords
        Airflow(login=302),
        Airflow(login=500),
        Airflow(login=429),
        Airflow(body=[]),
        Airflow(body={"access_token": 3}),
        Airflow(reading=404),  # an Airflow without this plugin
        Airflow(reading=401),
        Airflow(reading=503),
    ],
    ids=lambda unclear: f"{unclear.login} {unclear.reading} {unclear.body}",
)
def test_what_is_no_decision_of_airflow_is_an_error(unclear: Airflow) -> None:
    with pytest.raises(LoginUnavailable) as raised:
        unclear.user()
    assert "her password" not in str(raised.value)
    assert "http://airflow.example/base/" in str(raised.value)


def test_an_airflow_that_does_not_respond_is_an_error() -> None:
    async def broken(_request: httpx.Request) -> httpx.Response:
        raise httpx.ConnectError("refused")

    with pytest.raises(LoginUnavailable, match="ConnectError: refused"):
        asyncio.run(AirflowLogins(URL, httpx.MockTransport(broken))("anna", "her password"))


class Directory:
    """Users and passwords; ``asked`` is how often it was asked."""

    def __init__(self, **passwords: str) -> None:
        self.passwords = passwords
        self.asked = 0
        self.is_down = False

    async def __call__(self, name: str, password: str) -> User | None:
        self.asked += 1
        await asyncio.sleep(0)
        if self.is_down:
            raise LoginUnavailable("down")
        return User(name, is_reader=True) if self.passwords.get(name) == password else None


def test_a_right_login_is_remembered_and_a_wrong_one_is_not() -> None:
    directory = Directory(anna="one")
    logins = RememberedLogins(directory)

    async def play() -> None:
        assert logins.remembered("anna", "one") is None
        assert await logins("anna", "one") == User("anna", is_reader=True)
        assert logins.remembered("anna", "one") == User("anna", is_reader=True)
        assert logins.is_known("anna", "one")
        for name, password in (("anna", "two"), ("ann", "aone"), ("an", "na\0one")):
            assert await logins(name, password) is None
            assert logins.remembered(name, password) is None
            assert not logins.is_known(name, password)

    asyncio.run(play())
    assert "one" not in repr(vars(logins))


def test_a_login_is_asked_for_again_after_its_time_and_a_password_that_changed_is_no_longer_known() -> None:
    directory = Directory(anna="one")
    logins = RememberedLogins(directory, seconds=0)

    async def play() -> None:
        await logins("anna", "one")
        assert logins.remembered("anna", "one") is None
        assert logins.is_known("anna", "one")
        directory.passwords["anna"] = "two"
        assert await logins("anna", "one") is None
        assert not logins.is_known("anna", "one")

    asyncio.run(play())


def test_equal_logins_at_once_are_asked_for_once_and_one_who_leaves_stops_nobody() -> None:
    directory = Directory(anna="one")
    logins = RememberedLogins(directory)

    async def play() -> None:
        waiting = [asyncio.ensure_future(logins("anna", "one")) for _ in range(20)]
        await asyncio.sleep(0)
        waiting[0].cancel()
        assert await asyncio.gather(*waiting[1:]) == [User("anna", is_reader=True)] * 19

    asyncio.run(play())
    assert directory.asked == 1


def test_a_failure_reaches_all_that_wait_and_is_not_remembered() -> None:
    directory = Directory(anna="one")
    logins = RememberedLogins(directory)

    async def play() -> None:
        directory.is_down = True
        found = await asyncio.gather(*(logins("anna", "one") for _ in range(3)), return_exceptions=True)
        assert [type(error) for error in found] == [LoginUnavailable] * 3
        directory.is_down = False
        assert await logins("anna", "one") is not None

    asyncio.run(play())
