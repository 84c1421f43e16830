"""Certificates and keys of connections and remotes as files for the TLS library, each checked before it is used.

A value is PEM text or the path of a file. Forms of one line take the line breaks out of PEM text; they are put back.
Errors name the field and the file, and never repeat the value, which may be a key.
"""

from __future__ import annotations

import contextlib
import os
import re
import ssl
import tempfile
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

from registry_sync.errors import ConfigurationError
from registry_sync.hooks.connection import PEM_START

_BLOCK = re.compile(r"-----BEGIN ([A-Z0-9 ]+)-----(.*?)-----END \1-----", re.DOTALL)
_LINE_LENGTH = 64
_LONGEST_PATH = 1024
_OTHER_KEY = "KEY_VALUES_MISMATCH"


@dataclass(frozen=True)
class PemField:
    """A field that holds PEM text or a path: ``name`` is what its errors call it."""

    name: str
    value: str


def with_lines(text: str) -> str:
    """PEM text with the line breaks that a form or an environment variable has taken out (RFC 7468 section 2)."""
    return _BLOCK.sub(_broken, text.replace("\\n", "\n")).strip() + "\n"


def _broken(block: re.Match[str]) -> str:
    label, body = block.groups()
    if "\n" in body.strip():
        return block.group()
    data = "".join(body.split())
    lines = [data[start : start + _LINE_LENGTH] for start in range(0, len(data), _LINE_LENGTH)]
    return "\n".join([f"-----BEGIN {label}-----", *lines, f"-----END {label}-----", ""])


class CertificateFiles:
    """Files for the construction of a client: PEM text is written to ones that only this user can read."""

    def __init__(self, folder: Path) -> None:
        self._folder = folder
        self._count = 0

    def ca_bundle(self, field: PemField) -> str:
        """The path of a bundle of CA certificates. Raises :class:`ConfigurationError`."""
        path = self.path(field)
        if Path(path).is_dir():  # as OpenSSL and requests take them, too
            return path
        try:
            ssl.SSLContext(ssl.PROTOCOL_TLS_CLIENT).load_verify_locations(cafile=path)
        except (ssl.SSLError, OSError) as problem:
            raise ConfigurationError(f"{field.name}: {_where(field)} holds no CA certificate in PEM") from problem
        return path

    def client_pair(self, certificate: PemField, key: PemField | None) -> str | tuple[str, str]:
        """The path of a certificate with its key, or a pair of paths. Raises :class:`ConfigurationError`."""
        path = self.path(certificate)
        key_path = None if key is None else self.path(key)
        of_key = key or certificate
        if "ENCRYPTED" in Path(key_path or path).read_text(encoding="ascii", errors="replace"):
            raise ConfigurationError(
                f"{of_key.name}: the key in {_where(of_key)} has a passphrase; give it without one"
            )
        try:
            ssl.SSLContext(ssl.PROTOCOL_TLS_CLIENT).load_cert_chain(path, key_path)
        except ssl.SSLError as problem:
            if problem.reason == _OTHER_KEY:
                raise ConfigurationError(
                    f"{of_key.name}: the key does not belong to the certificate in {certificate.name}"
                ) from problem
            raise ConfigurationError(self._unreadable_pair(certificate, key, path)) from problem
        return path if key_path is None else (path, key_path)

    def path(self, field: PemField) -> str:
        """The path of a readable file with the field's content. Raises :class:`ConfigurationError`."""
        if PEM_START in field.value:
            self._count += 1
            path = self._folder / f"{self._count}.pem"
            with os.fdopen(os.open(path, os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o600), "w") as file:
                file.write(with_lines(field.value))
            return str(path)
        if not _is_path(field.value):
            raise ConfigurationError(
                f"{field.name} is neither PEM text, which starts with {PEM_START.strip()}, nor the absolute path of one"
            )
        try:
            if not Path(field.value).is_dir():
                with Path(field.value).open("rb"):
                    pass
        except OSError as problem:
            raise ConfigurationError(
                f"{field.name}: {field.value} cannot be read on this machine ({problem.strerror or problem}); give PEM "
                "text, or a file that exists wherever tasks and the API server run"
            ) from problem
        return field.value

    @staticmethod
    def _unreadable_pair(certificate: PemField, key: PemField | None, path: str) -> str:
        """Which of the two OpenSSL cannot read: it does not say."""
        text = Path(path).read_text(encoding="ascii", errors="replace")
        if f"{PEM_START}CERTIFICATE" not in text:
            return f"{certificate.name}: {_where(certificate)} holds no certificate in PEM"
        if key is None and "PRIVATE KEY" not in text:
            return f"{certificate.name}: {_where(certificate)} holds no key, and no other field gives it"
        of_key = key or certificate
        return f"{of_key.name}: {_where(of_key)} holds no private key in PEM, or a truncated one"


def _is_path(value: str) -> bool:
    return len(value) <= _LONGEST_PATH and "\n" not in value and Path(value).is_absolute()


def _where(field: PemField) -> str:
    return "the text" if PEM_START in field.value else field.value


@contextlib.contextmanager
def certificate_files() -> Iterator[CertificateFiles]:
    """Files for the construction of a client, which reads them only then."""
    with tempfile.TemporaryDirectory(prefix="registry-sync-") as folder:
        yield CertificateFiles(Path(folder))
