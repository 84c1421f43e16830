"""Who may pull: robots and users of Airflow, by Basic and by token, and what happens to those who guess."""

from __future__ import annotations

import asyncio
import time
from datetime import timedelta
from typing import Any

import httpx
import jwt
import pytest

from registry_sync.domain.quantities import utc_now
from registry_sync.domain.serving import User
from registry_sync.serve.logins import TOKEN_SECONDS
from registry_sync.users.airflow_logins import LoginUnavailable
from registry_sync.users.login_limits import PER_ACCOUNT_AND_ADDRESS, PER_ADDRESS
from unit.serve.conftest import PullDesk, client

PRIVATE, MISSING = "/v2/team/private/tags/list", "/v2/team/missing/tags/list"
ANNA, GUEST = ("anna", "her password"), ("guest", "pass:word")


class Users:
    """Airflow's users: ``anna`` reads, ``guest`` does not. ``asked`` are the names that were checked."""

    def __init__(self) -> None:
        self.asked: list[str] = []
        self.is_down = False

    async def __call__(self, name: str, password: str) -> User | None:
        self.asked.append(name)
        await asyncio.sleep(0)
        if self.is_down:
            raise LoginUnavailable("Airflow is down")
        return User(name, is_reader=name == "anna") if (name, password) in (ANNA, GUEST) else None


def _code(response: httpx.Response) -> tuple[int, str]:
    return response.status_code, response.json()["errors"][0]["code"]


async def _token(http: httpx.AsyncClient, auth: tuple[str, str] | None, *names: str) -> dict[str, str]:
    scopes = [("scope", f"repository:{name}:pull") for name in names]
    response = await http.get("/v2/token", params=scopes, auth=auth)
    assert response.status_code == 200, response.text
    return {"Authorization": f"Bearer {response.json()['token']}"}


@pytest.fixture
def robot(desk: PullDesk) -> tuple[str, str]:
    return "ci", desk.database.robots.create("ci", ["team/*"])[1]


def test_a_user_who_reads_over_rest_pulls_what_is_private_by_basic_and_by_token(desk: PullDesk) -> None:
    users = Users()

    async def story() -> None:
        async with client(desk.make(users=users)) as http:
            assert (await http.get("/v2/", auth=ANNA)).status_code == 200
            assert (await http.get(PRIVATE, auth=ANNA)).status_code == 200
            token = await _token(http, ANNA, "team/private")
            assert (await http.get(PRIVATE, headers=token)).status_code == 200
            for how in ({"auth": ANNA}, {"headers": token}):
                listed = await http.get("/v2/_catalog", **how)  # type: ignore[arg-type]
                assert listed.json() == {"repositories": ["app", "other/private", "team/private"]}

    desk.play(story())
    assert users.asked == ["anna"]


def test_a_user_who_reads_nothing_logs_in_and_pulls_what_is_public(desk: PullDesk) -> None:
    async def story() -> None:
        async with client(desk.make(users=Users())) as http:
            assert (await http.get("/v2/", auth=GUEST)).status_code == 200
            assert (await http.get("/v2/app/tags/list", auth=GUEST)).status_code == 200
            for path in (PRIVATE, MISSING):
                assert _code(await http.get(path, auth=GUEST)) == (404, "NAME_UNKNOWN")
                token = await _token(http, GUEST, path.removeprefix("/v2/").removesuffix("/tags/list"))
                assert _code(await http.get(path, headers=token)) == (404, "NAME_UNKNOWN")
            for how in ({"auth": GUEST}, {"headers": token}):
                assert (await http.get("/v2/_catalog", **how)).json() == {"repositories": ["app"]}  # type: ignore[arg-type]

    desk.play(story())


def test_without_an_airflow_to_ask_only_robots_log_in(desk: PullDesk, robot: tuple[str, str]) -> None:
    async def story() -> None:
        async with client(desk.make()) as http:
            assert _code(await http.get("/v2/", auth=ANNA)) == (401, "UNAUTHORIZED")
            assert (await http.get(PRIVATE, auth=robot)).status_code == 200

    desk.play(story())


def test_a_robots_secret_is_never_sent_to_airflow_nor_a_users_password_looked_up(
    desk: PullDesk, robot: tuple[str, str]
) -> None:
    users = Users()

    async def story() -> None:
        async with client(desk.make(users=users)) as http:
            assert (await http.get(PRIVATE, auth=robot)).status_code == 200
            assert (await http.get(PRIVATE, auth=("anna", robot[1]))).status_code == 401
            assert (await http.get(PRIVATE, auth=("ci", robot[1][:-1] + "~"))).status_code == 401

    desk.play(story())
    assert users.asked == ["ci"], "what has not the form of a secret may be a password"


def test_a_robots_token_lists_what_the_robot_may_pull_now(desk: PullDesk, robot: tuple[str, str]) -> None:
    async def story() -> None:
        async with client(desk.make()) as http:
            token = await _token(http, robot, "app")
            assert (await http.get("/v2/_catalog", headers=token)).json()["repositories"] == ["app", "team/private"]
            desk.database.robots.revoke("ci")
            assert (await http.get("/v2/_catalog", headers=token)).json()["repositories"] == ["app"]
            assert (await http.get("/v2/_catalog", headers=await _token(http, None))).json()["repositories"] == ["app"]

    desk.play(story())


def test_a_token_that_was_asked_for_another_name_is_to_be_asked_for_again(
    desk: PullDesk, robot: tuple[str, str]
) -> None:
    """A client that keeps one token for two repositories learns that it needs another one, and not that one is gone."""

    async def story() -> None:
        async with client(desk.make()) as http:
            token = await _token(http, robot, "app")
            for name in ("team/private", "team/missing", "other/private"):
                response = await http.get(f"/v2/{name}/tags/list", headers=token)
                assert response.status_code == 401
                wanted = f'scope="repository:{name}:pull",error="insufficient_scope"'
                assert response.headers["WWW-Authenticate"].endswith(wanted)
            token = await _token(http, robot, "team/private", "team/missing", "other/private")
            statuses = [
                (await http.get(f"/v2/{name}/tags/list", headers=token)).status_code
                for name in ("team/private", "team/missing", "other/private")
            ]
            assert statuses == [200, 404, 404]

    desk.play(story())


def test_a_token_cannot_be_exchanged_for_another_one(desk: PullDesk, robot: tuple[str, str]) -> None:
    """It would live for ever, and grow."""

    async def story() -> None:
        async with client(desk.make(users=Users())) as http:
            for auth in (robot, ANNA):
                first = await _token(http, auth, "team/private")
                response = await http.get("/v2/token", params={"scope": "repository:team/private:pull"}, headers=first)
                claims = jwt.decode(response.json()["token"], options={"verify_signature": False})
                assert (claims["sub"], claims["access"][0]["actions"], claims.get("reader")) == ("", [], None)

    desk.play(story())


def test_a_token_that_was_right_ends_when_it_says(desk: PullDesk, monkeypatch: pytest.MonkeyPatch) -> None:
    """It is read once and remembered, for no longer than it is good."""
    name, secret = "ci", desk.database.robots.create("ci", ["team/*"])[1]
    verified: list[str] = []
    decode = jwt.decode

    def counted(token: str, *given: Any, **options: Any) -> Any:
        verified.append(token)
        return decode(token, *given, **options)

    async def story() -> None:
        async with client(desk.make()) as http:
            token = await _token(http, (name, secret), "team/private")
            monkeypatch.setattr(jwt, "decode", counted)
            for _ in range(3):
                assert (await http.get(PRIVATE, headers=token)).status_code == 200
            assert len(verified) == 1
            altered = {"Authorization": f"{token['Authorization']}x"}
            assert (await http.get(PRIVATE, headers=altered)).status_code == 401
            ended_at = time.time() + TOKEN_SECONDS + 1
            monkeypatch.setattr(time, "time", lambda: ended_at)
            await http.get(PRIVATE, headers=token)
            assert len(verified) == 3, "it is judged anew"

    desk.play(story())


def test_a_robot_that_expires_pulls_on_for_the_life_of_its_token_at_most(desk: PullDesk) -> None:
    _, secret = desk.database.robots.create("brief", ["team/*"], expires_at=utc_now() + timedelta(hours=1))

    async def story() -> tuple[Any, int]:
        async with client(desk.make()) as http:
            token = await _token(http, ("brief", secret), "team/private")
            desk.database.robots.revoke("brief")
            assert (await http.get(PRIVATE, headers=token)).status_code == 200
            assert (await http.get(PRIVATE, auth=("brief", secret))).status_code == 401
            return jwt.decode(token["Authorization"].split()[1], options={"verify_signature": False}), int(time.time())

    claims, now = desk.play(story())
    assert claims["exp"] - now <= TOKEN_SECONDS == 300


# -- those who guess ---------------------------------------------------------------------------------------------------


def test_guessing_a_password_ends_with_429_and_airflow_is_not_asked_any_more(desk: PullDesk) -> None:
    users = Users()

    async def story() -> None:
        app = desk.make(users=users)
        async with client(app) as http, client(app, "192.0.2.2") as elsewhere:
            for number in range(PER_ACCOUNT_AND_ADDRESS.burst):
                assert _code(await http.get("/v2/token", auth=("anna", f"guess {number}"))) == (401, "UNAUTHORIZED")
            for path in ("/v2/token", "/v2/", PRIVATE):
                refused = await http.get(path, auth=("anna", "one more"))
                assert _code(refused) == (429, "TOOMANYREQUESTS")
                assert 0 < int(refused.headers["Retry-After"]) <= PER_ACCOUNT_AND_ADDRESS.seconds
            assert len(users.asked) == PER_ACCOUNT_AND_ADDRESS.burst
            # The password itself is no longer compared from there, but from elsewhere it is.
            assert (await http.get("/v2/", auth=ANNA)).status_code == 429
            assert (await elsewhere.get("/v2/", auth=ANNA)).status_code == 200
            # And now this login is known to be right.
            assert (await http.get("/v2/", auth=ANNA)).status_code == 200

    desk.play(story())


def test_many_guesses_at_once_are_no_more_than_in_turn(desk: PullDesk) -> None:
    users = Users()

    async def story() -> None:
        async with client(desk.make(users=users)) as http:
            responses = await asyncio.gather(*(http.get("/v2/", auth=("anna", f"guess {n}")) for n in range(40)))
            assert sorted({response.status_code for response in responses}) == [401, 429]

    desk.play(story())
    assert len(users.asked) == PER_ACCOUNT_AND_ADDRESS.burst


def test_a_good_robot_is_let_in_however_often_its_name_or_others_are_guessed(
    desk: PullDesk, robot: tuple[str, str]
) -> None:
    async def story() -> None:
        app = desk.make(users=Users())
        wrong = robot[1][:-1] + ("A" if robot[1][-1] != "A" else "B")
        async with client(app) as http, client(app, "192.0.2.2") as elsewhere:
            statuses = [(await http.get("/v2/", auth=("ci", wrong))).status_code for _ in range(8)]
            assert statuses == [401] * PER_ACCOUNT_AND_ADDRESS.burst + [429] * 3
            for number in range(PER_ADDRESS.burst):
                await http.get("/v2/", auth=(f"robot-{number}", wrong))
            assert (await http.get("/v2/", auth=("robot-x", wrong))).status_code == 429
            for each in (http, elsewhere):
                assert (await each.get(PRIVATE, auth=robot)).status_code == 200

    desk.play(story())


def test_good_logins_of_an_address_are_never_counted(desk: PullDesk) -> None:
    async def story() -> None:
        async with client(desk.make(users=Users())) as http:
            for _ in range(3 * PER_ADDRESS.burst):
                assert (await http.get("/v2/", auth=ANNA)).status_code == 200

    desk.play(story())


def test_behind_a_trusted_proxy_the_clients_are_counted_and_not_the_proxy(desk: PullDesk) -> None:
    from ipaddress import ip_network

    async def story() -> None:
        app = desk.make(users=Users(), trusted_proxies=(ip_network("10.0.0.0/8"),))
        async with client(app, "10.0.0.5") as http:
            guesses = [
                (await http.get("/v2/", auth=("anna", "guess"), headers={"X-Forwarded-For": address})).status_code
                for address in ("203.0.113.1", "203.0.113.2")
                for _ in range(PER_ACCOUNT_AND_ADDRESS.burst)
            ]
            assert set(guesses) == {401}
            one_more = await http.get("/v2/", auth=("anna", "guess"), headers={"X-Forwarded-For": "203.0.113.1"})
            assert one_more.status_code == 429

    desk.play(story())


def test_an_airflow_that_is_down_is_503_and_counts_as_nobodys_failure(
    desk: PullDesk, robot: tuple[str, str], caplog: pytest.LogCaptureFixture
) -> None:
    users = Users()
    users.is_down = True

    async def story() -> None:
        async with client(desk.make(users=users)) as http:
            for _ in range(2 * PER_ADDRESS.burst):
                refused = await http.get("/v2/", auth=ANNA)
                assert _code(refused) == (503, "UNAVAILABLE")
                assert refused.headers["Retry-After"]
            assert (await http.get(PRIVATE, auth=robot)).status_code == 200
            users.is_down = False
            assert (await http.get("/v2/", auth=ANNA)).status_code == 200

    desk.play(story())
    assert "Airflow is down" in caplog.text
    assert "her password" not in caplog.text


@pytest.mark.parametrize("value", ["", "!", "YW5uYQ==", "OnNlY3JldA==", "YW5uYTo=", "/////w==", "YTpi" * 400])
def test_a_login_that_cannot_be_read_is_wrong_and_asks_nobody(desk: PullDesk, value: str) -> None:
    users = Users()

    async def story() -> None:
        async with client(desk.make(users=users)) as http:
            response = await http.get("/v2/", headers={"Authorization": f"Basic {value}"})
            assert _code(response) == (401, "UNAUTHORIZED")

    desk.play(story())
    assert users.asked == []
