"""Passwords of Amazon's registries, made by boto3 against a local endpoint that answers as AWS does."""

from __future__ import annotations

import base64
import json
import sys
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from registry_sync.domain.references import RegistryUrl, RepositoryName
from registry_sync.domain.remote import RemoteSpec
from registry_sync.errors import AuthenticationFailed, ConfigurationError, ProtocolError, ServerUnavailable
from registry_sync.hooks.clients import open_client
from registry_sync.hooks.credential_helpers import amazon_ecr, minted_credentials
from registry_sync.hooks.registry import RegistryHook
from registry_sync.oci.auth.credentials import ANONYMOUS, Credentials
from support.hostile_registry import HostileRegistry, Raw, Request, errors_reply, json_reply, reply
from support.object_store import s3_server

pytestmark = pytest.mark.rule("A4.17")
ACCOUNT = "123456789012"
HOST = f"{ACCOUNT}.dkr.ecr.eu-central-1.amazonaws.com"
KEY = Credentials("AKIAIOSFODNN7EXAMPLE", "the secret of the key")
PRIVATE = "AmazonEC2ContainerRegistry_V20150921.GetAuthorizationToken"
PUBLIC = "SpencerFrontendService.GetAuthorizationToken"


def entry(password: str = "minted-1", life_seconds: float = 12 * 3600) -> dict[str, Any]:
    token = base64.b64encode(f"AWS:{password}".encode()).decode()
    return {"authorizationToken": token, "expiresAt": time.time() + life_seconds, "proxyEndpoint": f"https://{HOST}"}


@pytest.fixture
def aws(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> Iterator[HostileRegistry]:
    """An endpoint in place of AWS, and no key or role to be found but what a test gives."""
    with HostileRegistry() as server:
        server.on("POST", "/", json_reply({"authorizationData": [entry()]}))
        for name in ("AWS_PROFILE", "AWS_ACCESS_KEY_ID", "AWS_SECRET_ACCESS_KEY", "AWS_SESSION_TOKEN"):
            monkeypatch.delenv(name, raising=False)
        monkeypatch.setenv("AWS_CONFIG_FILE", str(tmp_path / "none"))
        monkeypatch.setenv("AWS_SHARED_CREDENTIALS_FILE", str(tmp_path / "none"))
        monkeypatch.setenv("AWS_EC2_METADATA_DISABLED", "true")
        monkeypatch.setenv("AWS_ENDPOINT_URL_ECR", server.base)
        monkeypatch.setenv("AWS_ENDPOINT_URL_ECR_PUBLIC", server.base)
        monkeypatch.setenv("http_proxy", "http://127.0.0.1:1")  # the environment's proxy is not used
        yield server


def mint(host: str = HOST, login: Credentials = KEY) -> tuple[Credentials, float]:
    minted = amazon_ecr(RegistryUrl.parse(f"https://{host}"), login, None)()
    return minted.credentials, minted.life_seconds


def test_a_private_registrys_password_is_requested_in_its_region_and_account(aws: HostileRegistry) -> None:
    credentials, life_seconds = mint()
    assert credentials == Credentials("AWS", "minted-1")
    assert life_seconds == pytest.approx(12 * 3600, abs=60)
    (asked,) = aws.requests
    assert asked.header("x-amz-target") == PRIVATE
    assert json.loads(asked.body) == {"registryIds": [ACCOUNT]}
    signed = asked.header("authorization") or ""
    assert f"Credential={KEY.username}/" in signed
    assert "/eu-central-1/ecr/aws4_request" in signed
    assert KEY.password not in str(asked)


@pytest.mark.slow
def test_public_ecrs_password_is_requested_in_its_own_region(aws: HostileRegistry) -> None:
    aws.on("POST", "/", json_reply({"authorizationData": entry("public-1")}))
    assert mint("public.ecr.aws")[0] == Credentials("AWS", "public-1")
    (asked,) = aws.requests
    assert asked.header("x-amz-target") == PUBLIC
    assert "/us-east-1/ecr-public/aws4_request" in (asked.header("authorization") or "")


@pytest.mark.slow
def test_another_implementation_of_aws_is_understood_too(aws: HostileRegistry, monkeypatch: pytest.MonkeyPatch) -> None:
    """Moto's passwords ended years ago; they are taken for a minute, so that a wrong clock asks nobody without end."""
    with s3_server() as moto:
        monkeypatch.setenv("AWS_ENDPOINT_URL_ECR", moto.endpoint)
        source = minted_credentials("amazon_ecr", RegistryUrl.parse(f"https://{HOST}"), KEY, None)
        assert source() == Credentials("AWS", f"{ACCOUNT}-auth-token")
    assert source().username == "AWS", "it is kept: the service is gone"


@pytest.mark.parametrize(
    ("host", "region"),
    [
        (f"{ACCOUNT}.dkr.ecr.cn-north-1.amazonaws.com.cn", "cn-north-1"),
        (f"{ACCOUNT}.dkr.ecr.us-gov-west-1.amazonaws.com", "us-gov-west-1"),
        (f"{ACCOUNT}.dkr.ecr-fips.us-east-2.amazonaws.com", "us-east-2"),
    ],
)
def test_other_partitions_are_known(aws: HostileRegistry, host: str, region: str) -> None:
    assert mint(host)[0].username == "AWS"
    assert f"/{region}/ecr/aws4_request" in (aws.requests[0].header("authorization") or "")


@pytest.mark.parametrize(
    "host",
    [
        "registry.example",
        f"{HOST}.evil.example",
        f"x.{HOST}",
        "12345.dkr.ecr.eu-central-1.amazonaws.com",
        f"{ACCOUNT}.dkr.ecr.eu-central-1.amazonaws.com.evil",
        "public.ecr.aws.evil.example",
    ],
)
def test_another_host_is_refused_before_any_request(aws: HostileRegistry, host: str) -> None:
    with pytest.raises(ConfigurationError, match="is neither"):
        mint(host)
    assert aws.requests == []


@pytest.mark.parametrize(
    "login", [Credentials("AWS", "what get-login-password gave"), Credentials(KEY.username), Credentials(None, "x")]
)
def test_a_login_that_is_no_access_key_is_refused(aws: HostileRegistry, login: Credentials) -> None:
    with pytest.raises(ConfigurationError, match="access key"):
        mint(login=login)


@pytest.mark.slow
def test_a_key_of_the_environment_is_found_when_none_is_given(
    aws: HostileRegistry, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("AWS_ACCESS_KEY_ID", "AKIAFROMENVIRONMENT0")
    monkeypatch.setenv("AWS_SECRET_ACCESS_KEY", "secret")
    mint(login=ANONYMOUS)
    assert "Credential=AKIAFROMENVIRONMENT0/" in (aws.requests[0].header("authorization") or "")


def test_without_any_key_or_role_it_says_what_to_give(aws: HostileRegistry) -> None:
    with pytest.raises(ConfigurationError, match="user name and password of the connection, or a role"):
        mint(login=ANONYMOUS)


def aws_error(status: int, code: str) -> Raw:
    return json_reply({"__type": code, "message": "it is said why"}, status)


@pytest.mark.parametrize(
    ("response", "error", "is_temporary"),
    [
        (aws_error(400, "AccessDeniedException"), AuthenticationFailed, False),
        (aws_error(403, "UnrecognizedClientException"), AuthenticationFailed, False),
        (aws_error(400, "ThrottlingException"), ServerUnavailable, True),
        (aws_error(500, "ServerException"), ServerUnavailable, True),
        (reply(502, b"<html>\n<h1>\x1b[31mBad Gateway"), ServerUnavailable, True),
        (json_reply({"authorizationData": []}), ProtocolError, False),
        (json_reply({}), ProtocolError, False),
        (
            json_reply({"authorizationData": [{"authorizationToken": "no base64", "expiresAt": 1}]}),
            ProtocolError,
            False,
        ),
        (Raw(()), ServerUnavailable, True),
    ],
    ids=["denied", "unknown key", "throttled", "broken", "page", "none", "nothing", "no base64", "cut off"],
)
def test_errors_of_aws_are_classed_by_who_must_act(
    aws: HostileRegistry, response: Raw, error: type[Exception], is_temporary: bool, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("time.sleep", lambda _seconds: None)
    aws.on("POST", "/", response)
    with pytest.raises(error, match=HOST) as raised:
        mint()
    assert getattr(raised.value, "is_temporary") is is_temporary  # noqa: B009 - the class is a parameter
    assert str(KEY.password) not in str(raised.value)
    assert str(raised.value).isprintable()


def test_without_boto3_it_says_what_to_install(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "boto3", None)
    with pytest.raises(ConfigurationError, match=r"install registry-sync\[amazon\]"):
        mint()


# -- from the connection to the registry, which a proxy stands in for --------------------------------------------------

REPOSITORY = RepositoryName("team/app")
TAGS = f"http://{HOST}/v2/{REPOSITORY}/tags/list"


@pytest.fixture
def remote(aws: HostileRegistry, monkeypatch: pytest.MonkeyPatch) -> RemoteSpec:
    """ECR by plain http and a proxy, so that its name needs no address; AWS is asked by way of the proxy too."""
    extra = {"credential_helper": "amazon_ecr", "allow_insecure_credentials": True, "proxy": aws.base}
    connection = {
        "conn_type": "registry",
        "host": f"http://{HOST}",
        "login": KEY.username,
        "password": KEY.password,
        "extra": extra,
    }
    monkeypatch.setenv("AIRFLOW_CONN_ECR", json.dumps(connection))
    return RemoteSpec.parse("demo", f"http://{HOST}", REPOSITORY, conn_id="ecr")


@pytest.mark.slow
def test_a_connection_with_the_helper_signs_in_with_what_was_minted(
    aws: HostileRegistry, remote: RemoteSpec, monkeypatch: pytest.MonkeyPatch
) -> None:
    told: list[object] = []  # Airflow itself tells whole dicts
    monkeypatch.setattr("airflow.sdk.log.mask_secret", lambda secret, _name=None: told.append(secret))

    def tags(request: Request) -> Raw:
        if request.header("authorization") == Credentials("AWS", "minted-1").basic:
            return json_reply({"tags": ["a"]})
        return errors_reply(401, "DENIED", headers=[("WWW-Authenticate", "Basic realm=x")])

    aws.on("GET", TAGS, tags)
    aws.on("GET", f"http://{HOST}/v2/", reply(200, b"{}"))
    aws.on("POST", f"{aws.base}/", json_reply({"authorizationData": [entry()]}))
    with open_client(remote) as client:
        assert [client.list_tags(REPOSITORY).tags for _ in range(3)] == [("a",)] * 3
    assert len(aws.asked("POST")) == 1, "the password is kept"
    assert KEY.password in told
    assert "minted-1" in told
    ok, message = RegistryHook("ecr").test_connection()
    assert ok, message


def test_a_helper_for_another_host_fails_when_the_connection_is_tested(monkeypatch: pytest.MonkeyPatch) -> None:
    extra = {"credential_helper": "amazon_ecr"}
    monkeypatch.setenv("AIRFLOW_CONN_ECR", json.dumps({"conn_type": "registry", "host": "quay.io", "extra": extra}))
    ok, message = RegistryHook("ecr").test_connection()
    assert not ok
    assert "quay.io is neither" in message
