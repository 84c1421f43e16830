"""Certificates and keys as forms give them, and errors that name the field and the file."""

from __future__ import annotations

from pathlib import Path

import pytest
from cryptography.hazmat.primitives import serialization

from registry_sync.errors import ConfigurationError
from registry_sync.hooks.certificates import PemField, certificate_files, with_lines
from support.certificates import CertificateAuthority

PASSPHRASE = b"open"


@pytest.fixture
def authority(tmp_path: Path) -> CertificateAuthority:
    return CertificateAuthority(tmp_path / "ca")


@pytest.fixture
def pair(authority: CertificateAuthority) -> tuple[str, str]:
    """Certificate and key as PEM text."""
    certificate, key = (Path(path).read_text() for path in authority.client())
    return certificate, key


def certificate(value: str) -> PemField:
    return PemField("connection 'quay': Client certificate", value)


def key(value: str) -> PemField:
    return PemField("connection 'quay': Client key", value)


@pytest.mark.parametrize("taken_out", ["", " ", "\\n"])
def test_pem_text_that_lost_its_line_breaks_gets_them_back(pair: tuple[str, str], taken_out: str) -> None:
    """As a form of one line takes them out or puts blanks for them, and an environment variable a backslash and n."""
    flat = tuple(text.strip().replace("\n", taken_out) for text in pair)
    assert [with_lines(text) for text in flat] == list(pair)
    with certificate_files() as files:
        paths = files.client_pair(certificate(flat[0]), key(flat[1]))
        assert [Path(path).read_text() for path in paths] == list(pair)


def test_a_chain_and_its_key_in_one_text_stay_as_they_are(pair: tuple[str, str]) -> None:
    both = pair[0] + pair[0] + pair[1]
    assert with_lines(both) == both
    assert with_lines(both.replace("\n", "")) == both


def test_files_of_a_key_are_for_this_user_only(pair: tuple[str, str]) -> None:
    with certificate_files() as files:
        path = Path(files.path(key(pair[1])))
        assert path.stat().st_mode & 0o777 == 0o600
        assert path.parent.stat().st_mode & 0o777 == 0o700
    assert not path.exists()


def test_an_error_names_the_field_and_the_file(
    tmp_path: Path, authority: CertificateAuthority, pair: tuple[str, str]
) -> None:
    other = Path(authority.client("other")[1]).read_text()
    private = serialization.load_pem_private_key(pair[1].encode(), None)
    encrypted = private.private_bytes(
        serialization.Encoding.PEM,
        serialization.PrivateFormat.PKCS8,
        serialization.BestAvailableEncryption(PASSPHRASE),
    ).decode()
    empty = tmp_path / "empty.pem"
    empty.write_text("")
    missing = str(tmp_path / "missing.pem")
    expected = {
        (missing, pair[1]): f"Client certificate: {missing} cannot be read on this machine (No such file",
        (pair[0], missing): f"Client key: {missing} cannot be read on this machine",
        (pair[0], str(empty)): f"Client key: {empty} holds no private key in PEM",
        (pair[0], pair[1][:80]): "Client key: the text holds no private key in PEM, or a truncated one",
        (pair[0], other): "Client key: the key does not belong to the certificate in connection 'quay': Client cert",
        (pair[0], encrypted): "Client key: the key in the text has a passphrase; give it without one",
        (pair[1], pair[1]): "Client certificate: the text holds no certificate in PEM",
        (pair[0], "c2VjcmV0"): "Client key is neither PEM text, which starts with -----BEGIN, nor the absolute path",
    }
    with certificate_files() as files:
        for (given, given_key), said in expected.items():
            with pytest.raises(ConfigurationError) as refused:
                files.client_pair(certificate(given), key(given_key))
            assert said in str(refused.value)
            assert "connection 'quay': " in str(refused.value)
            assert "c2VjcmV0" not in str(refused.value)
        with pytest.raises(ConfigurationError, match="the text holds no key, and no other field gives it"):
            files.client_pair(certificate(pair[0]), None)
        with pytest.raises(ConfigurationError, match=f"CA certificate: {empty} holds no CA certificate in PEM"):
            files.ca_bundle(PemField("connection 'quay': CA certificate", str(empty)))
        assert files.ca_bundle(PemField("CA certificate", str(authority.certificate_path))) == str(
            authority.certificate_path
        )
