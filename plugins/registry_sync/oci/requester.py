"""One question to the registry, answered or raised: authentication, retries and errors around the transport."""

from __future__ import annotations

import logging
import re
import threading
from collections.abc import Callable, Iterator, Mapping
from typing import Any, TypeVar

from registry_sync.domain.references import RepositoryName
from registry_sync.errors import (
    AccessDenied,
    AuthenticationFailed,
    ChallengeInvalid,
    RegistryError,
    RepositoryUnavailable,
)
from registry_sync.oci.answer_errors import Occasion, denied_message, error_of, read_error_body, unavailable_message
from registry_sync.oci.answers import Answer
from registry_sync.oci.authenticator import Authenticator, NothingElse
from registry_sync.oci.challenge import parse_challenges
from registry_sync.oci.clock import Clock
from registry_sync.oci.origins import Target
from registry_sync.oci.retry import Retry
from registry_sync.oci.scopes import pull_scope
from registry_sync.oci.tokens import scrubbed
from registry_sync.oci.transport import Transport
from registry_sync.oci.usage import Usage

T = TypeVar("T")
log = logging.getLogger(__name__)
_WARNING = re.compile(r'299 - "((?:[^"\\]|\\.)*)"')
MAX_WARNING_BYTES = 4096


class Requester:
    """Asks one registry; shared by all threads of a client."""

    def __init__(
        self, transport: Transport, authenticator: Authenticator, retry: Retry, clock: Clock, usage: Usage
    ) -> None:
        self._transport = transport
        self._authenticator = authenticator
        self.clock = clock
        self.retry = retry
        self.usage = usage

    def target(self, path: str) -> Target:
        """``path`` on the registry."""
        return Target(self._transport.own, path)

    def ask(
        self,
        method: str,
        target: Target,
        occasion: Occasion,
        headers: Mapping[str, str],
        read: Callable[[Answer], T],
        *,
        accepted: frozenset[int] = frozenset({200}),
    ) -> T:
        """What ``read`` makes of the answer; asked again, and read again, after temporary errors."""

        def attempt() -> T:
            answer = self.ask_once(method, target, occasion, headers, accepted=accepted)
            try:
                return read(answer)
            except BaseException:
                answer.abandon()
                raise

        return self.retry.run(attempt)

    def ask_once(
        self,
        method: str,
        target: Target,
        occasion: Occasion,
        headers: Mapping[str, str],
        *,
        accepted: frozenset[int] = frozenset({200}),
    ) -> Answer:
        """The answer, when its status is in ``accepted``. Raises the other statuses' errors.

        A 401 is answered as :class:`~registry_sync.oci.authenticator.Login` says; the body of one that is accepted was
        read.
        """
        scope = pull_scope(RepositoryName(occasion.repository)) if occasion.repository else None
        login = self._authenticator.login(scope)
        refusal: tuple[Answer, tuple[str, ...]] | None = None
        while True:
            try:
                answer = self._transport.follow(method, target, headers, login)
            except NothingElse:
                if refusal is None:
                    raise
                return self._refused(refusal, occasion, accepted)
            if answer.status != 401 or answer.target.origin != self._transport.own:
                break
            # Read first: a token may be asked for at the same host, which must not wait for this connection.
            refusal = answer, read_error_body(answer)[0]
            try:
                is_refused = login.is_refused(answer.header("WWW-Authenticate"), answer.target)
            except ChallengeInvalid as problem:
                problem.redirected_by = answer.sent_on_by
                raise
            if is_refused:
                return self._refused(refusal, occasion, accepted)
        if (warning := answer.header("Warning")) is not None:
            self._note_warning(warning)
        if answer.status in accepted:
            return answer
        raise self.error(answer, occasion)

    def _refused(self, refusal: tuple[Answer, tuple[str, ...]], occasion: Occasion, accepted: frozenset[int]) -> Answer:
        answer, codes = refusal
        if 401 in accepted:
            return answer
        raise self.unauthorized(answer, occasion, codes)

    def unauthorized(self, answer: Answer, occasion: Occasion, codes: tuple[str, ...]) -> RegistryError:
        """The error of a 401 that stays; ``codes`` are those of its body, which was read."""
        host = answer.target.origin.netloc
        try:
            challenges = parse_challenges(answer.header("WWW-Authenticate") or "")
        except RegistryError:
            challenges = ()
        context: dict[str, Any] = {
            "host": host,
            "repository": occasion.repository,
            "method": answer.method,
            "url": answer.target.url,
            "status": 401,
            "redirected_by": answer.sent_on_by,
        }
        if self._authenticator.is_anonymous:
            message = unavailable_message(host, occasion, 401, "", is_anonymous=True)
            return RepositoryUnavailable(message, codes=codes, **context)
        if not any(challenge.is_about_scope for challenge in challenges):
            return AuthenticationFailed(
                f"{host} rejects the credentials of the connection for {occasion}: they are wrong or do not reach it"
                + (", or it does not exist there" if occasion.repository else ""),
                codes=codes,
                **context,
            )
        if host == "registry-1.docker.io":
            message = unavailable_message(host, occasion, 401, "", is_anonymous=False)
            return RepositoryUnavailable(message, codes=codes, **context)
        return AccessDenied(denied_message(host, occasion, ""), codes=codes, **context)

    def error(self, answer: Answer, occasion: Occasion) -> RegistryError:
        """The error that ``answer`` means, which is consumed."""
        return error_of(
            answer,
            occasion,
            is_anonymous=self._authenticator.is_anonymous,
            now=self.clock.now(),
            scrub=lambda text: scrubbed(text, self._authenticator.secrets()),
        )

    def _note_warning(self, header: str) -> None:
        for text in warnings_in(header):
            if self.usage.note_warning(text):
                log.warning("%s warns: %s", self._transport.own.netloc, text)


def warnings_in(header: str) -> Iterator[str]:
    """The texts of a ``Warning`` header in the form of the distribution specification, "Warnings"; others are left out.

    What a text says is for people; it is printable.
    """
    for match in _WARNING.finditer(header[:MAX_WARNING_BYTES]):
        text = re.sub(r"\\(.)", r"\1", match[1])
        if text.isprintable():
            yield text


class ChallengeProbe:
    """The challenge of ``/v2/``, asked once: some registries leave it out everywhere else."""

    def __init__(self, transport: Transport) -> None:
        self._transport = transport
        self._lock = threading.Lock()
        self._header: str | None = None
        self._is_asked = False

    def __call__(self) -> tuple[str | None, Target]:
        """The header, None when ``/v2/`` has none either, and the target it came from."""
        target = Target(self._transport.own, "/v2/")
        with self._lock:
            if not self._is_asked:
                answer = self._transport.follow("GET", target, {})
                self._header = answer.header("WWW-Authenticate") if answer.status == 401 else None
                answer.discard()
                self._is_asked = True
        return self._header, target
