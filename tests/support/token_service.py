"""A token service as the distribution project describes it, whose tokens a real registry verifies (token/jwt.md)."""

from __future__ import annotations

import base64
import itertools
import time
from pathlib import Path
from types import TracebackType
from typing import Any
from urllib.parse import parse_qs

import jwt
from cryptography import x509
from cryptography.hazmat.primitives.serialization import Encoding, load_pem_private_key

from support.certificates import ServerCertificate
from support.hostile_registry import HostileRegistry, Raw, Request, errors_reply, json_reply

ISSUER, SERVICE = "tests", "a-registry-of-tests"
USERNAME, PASSWORD = "mirror", "correct horse battery"
#: How long after its end a registry still takes a token.
LEEWAY_SECONDS = 60


class TokenService:
    """Gives who knows the password tokens to pull from ``readable``, and others tokens for nothing.

    Runs between ``with`` and its end, at another address than a registry. ``certificate`` is what it signs with;
    ``life_seconds`` how long a registry accepts a token, whatever the response says of it.
    """

    def __init__(self, certificate: ServerCertificate, readable: str, *, life_seconds: float = 300) -> None:
        self.server = HostileRegistry(host="127.0.0.2")
        self.server.on("GET", "/auth", self._answer)
        self.token_count = 0
        self._certificate = certificate
        self._readable = readable
        self._life_seconds = life_seconds
        self._numbers = itertools.count(1)
        chain = x509.load_pem_x509_certificate(certificate.chain_path.read_bytes())
        self._chain = [base64.b64encode(chain.public_bytes(Encoding.DER)).decode()]
        self._key: Any = load_pem_private_key(certificate.key_path.read_bytes(), None)

    def __enter__(self) -> TokenService:
        self.server.__enter__()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, problem: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.server.__exit__(kind, problem, trace)

    @property
    def registry_config(self) -> dict[str, Any]:
        """What a registry must have in its configuration to send its clients here."""
        bundle: Path = self._certificate.ca_path
        token = {
            "realm": f"{self.server.base}/auth",
            "service": SERVICE,
            "issuer": ISSUER,
            "rootcertbundle": str(bundle),
        }
        return {"auth": {"token": token}}

    def _answer(self, request: Request) -> Raw:
        query = parse_qs(request.query)
        pair = base64.b64encode(f"{USERNAME}:{PASSWORD}".encode()).decode()
        authorization = request.header("authorization")
        if authorization not in (None, f"Basic {pair}"):
            return errors_reply(401, "UNAUTHORIZED")
        access = [
            {"type": kind, "name": name, "actions": ["pull"]}
            for scope in query.get("scope", ())
            for kind, name, _ in [scope.split(":")]
            if authorization is not None and name == self._readable
        ]
        self.token_count += 1
        now = time.time()
        claims = {
            "iss": ISSUER,
            "sub": USERNAME if authorization else "",
            "aud": SERVICE,
            "exp": int(now + self._life_seconds - LEEWAY_SECONDS),
            "nbf": int(now) - 10,
            "iat": int(now),
            "jti": str(next(self._numbers)),
            "access": access,
        }
        token = jwt.encode(claims, self._key, algorithm="ES256", headers={"x5c": self._chain})
        return json_reply({"token": token, "expires_in": 300})
