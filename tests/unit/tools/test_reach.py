"""Whether a registry is in reach: what responds is, whatever it says."""

from __future__ import annotations

import socket
import ssl
import threading
import time
from pathlib import Path

import pytest

from local_airflow import reach
from support.certificates import CertificateAuthority
from support.hostile_registry import HostileRegistry, reply


@pytest.mark.parametrize("status", [200, 401, 403, 404, 429, 503])
def test_a_registry_that_responds_is_in_reach_whatever_it_says(status: int) -> None:
    with HostileRegistry() as registry:
        registry.on("GET", "/v2/", reply(status, b"{}"))
        assert reach.why_out_of_reach(str(registry.url)) is None


def test_a_closed_port_is_out_of_reach() -> None:
    with socket.socket() as listener:
        listener.bind(("127.0.0.1", 0))
        url = f"http://127.0.0.1:{listener.getsockname()[1]}"
        assert reach.why_out_of_reach(url) == "connection refused"


def test_a_host_that_never_responds_is_given_up_in_time() -> None:
    with socket.socket() as listener:
        listener.bind(("127.0.0.1", 0))
        listener.listen()
        started = time.monotonic()
        reason = reach.why_out_of_reach(f"http://127.0.0.1:{listener.getsockname()[1]}", 0.2)
    assert reason == "no response within 0.2 seconds"
    assert time.monotonic() - started < 5


def test_a_name_that_is_never_resolved_is_given_up_in_time(monkeypatch: pytest.MonkeyPatch) -> None:
    is_over = threading.Event()

    def resolve(*_arguments: object, **_options: object) -> None:
        is_over.wait()
        raise socket.gaierror(socket.EAI_AGAIN, "Temporary failure in name resolution")

    monkeypatch.setattr(socket, "getaddrinfo", resolve)
    assert reach.why_out_of_reach("https://registry.invalid", 0.1) == "no response within 0.1 seconds"
    is_over.set()


def test_a_name_that_does_not_exist_is_named(monkeypatch: pytest.MonkeyPatch) -> None:
    def unknown(*_arguments: object, **_options: object) -> None:
        raise socket.gaierror(socket.EAI_NONAME, "Name or service not known")

    monkeypatch.setattr(socket, "getaddrinfo", unknown)
    assert reach.why_out_of_reach("https://hub.invalid") == "the name hub.invalid cannot be resolved"


def test_a_certificate_that_is_not_trusted_hides_nothing(tmp_path: Path) -> None:
    """A proxy that decrypts: the sync reports the certificate, and no sample takes its place."""
    certificate = CertificateAuthority(tmp_path).server()
    with HostileRegistry((str(certificate.chain_path), str(certificate.key_path))) as registry:
        registry.on("GET", "/v2/", reply(401, b"{}"))
        assert str(registry.url).startswith("https:")
        assert reach.why_out_of_reach(str(registry.url)) is None


def test_a_connection_that_is_cut_off_before_tls_is_out_of_reach(monkeypatch: pytest.MonkeyPatch) -> None:
    def cut(*_arguments: object, **_options: object) -> None:
        raise ssl.SSLEOFError(ssl.SSL_ERROR_EOF, "EOF occurred in violation of protocol")

    monkeypatch.setattr(socket, "create_connection", cut)
    assert reach.why_out_of_reach("https://hub.invalid") == "the connection is cut off"
