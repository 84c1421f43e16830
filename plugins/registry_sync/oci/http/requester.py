"""One request to the registry, with authentication, retries and error mapping around the transport."""

from __future__ import annotations

import logging
import random
import re
import threading
from collections import deque
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import AbstractContextManager
from copy import copy
from functools import lru_cache, partial
from typing import Any, TypeVar

from registry_sync.domain.known_registries import known_registry
from registry_sync.domain.references import RepositoryName
from registry_sync.errors import (
    AccessDenied,
    AuthenticationFailed,
    ChallengeInvalid,
    RateLimited,
    RegistryError,
    RegistrySyncError,
    RepositoryUnavailable,
)
from registry_sync.oci.auth.authenticator import Authenticator, FixedAuthorization, Login, NoAuthorizationLeft
from registry_sync.oci.auth.challenges import CATALOG_SCOPE, parse_challenges, repository_scope
from registry_sync.oci.auth.tokens import scrubbed
from registry_sync.oci.http.error_mapping import (
    RequestContext,
    denied_message,
    error_of,
    read_error_body,
    unavailable_message,
)
from registry_sync.oci.http.many_heads import HeadsLeft, ManyHeads, StartedRequest
from registry_sync.oci.http.options import ClientOptions, Clock
from registry_sync.oci.http.origins import Target
from registry_sync.oci.http.rate_limits import SLOWING_STATUSES, AccountBudget, Usage
from registry_sync.oci.http.received import JoinedHeaders
from registry_sync.oci.http.responses import Response
from registry_sync.oci.http.transport import Transport

T = TypeVar("T")
FIRST_BACKOFF_SECONDS = 0.5
LONGEST_BACKOFF_SECONDS = 15.0


class Pause:
    """When a registry accepts requests again; it applies to all threads of all clients that share it."""

    def __init__(self, clock: Clock, budget: AccountBudget | None = None) -> None:
        self._clock = clock
        self._budget = budget
        self._until = float("-inf")
        self._limit: RegistryError | None = None

    def extend(self, seconds: float) -> None:
        """No requests for that long."""
        self._until = max(self._until, self._clock.monotonic() + seconds)

    def refuse(self, seconds: float, limit: RegistryError) -> None:
        """No requests for that long, which is too long to wait: they are refused with ``limit``."""
        self._limit, self._until = limit, self._clock.monotonic() + seconds
        if self._budget is not None:
            self._budget.pause(seconds)

    @property
    def is_over(self) -> bool:
        """Whether requests are accepted now."""
        elsewhere = 0.0 if self._budget is None else self._budget.paused_seconds()
        return elsewhere <= 0 and self._until <= self._clock.monotonic()

    def wait(self, longest_seconds: float) -> None:
        """Waits for its end; where that is too long, raises the registry's error with the remaining wait."""
        elsewhere = 0.0 if self._budget is None else self._budget.paused_seconds()
        wait = max(elsewhere, self._until - self._clock.monotonic())
        if wait > longest_seconds and self._limit is None and elsewhere:
            raise _refused_elsewhere(wait)
        if wait > longest_seconds and self._limit is not None:
            error = copy(self._limit)
            error.retry_after_seconds = wait
            if isinstance(error, RateLimited):
                error.is_repeated = True
            raise error
        if wait > 0:
            self._clock.sleep(wait)


def _refused_elsewhere(seconds: float) -> RateLimited:
    error = RateLimited(
        "the registry has refused requests of this account by another process, and accepts them again later",
        retry_after_seconds=seconds,
    )
    error.is_repeated = True
    return error


class Retry:
    """Runs attempts. A registry's ``Retry-After`` is respected, or raised when it is longer than the options allow.

    The client's own backoff is never longer than that, so that the options alone determine the number of attempts.
    """

    def __init__(self, options: ClientOptions, clock: Clock, usage: Usage, pause: Pause | None = None) -> None:
        self._options = options
        self._clock = clock
        self._usage = usage
        self.pause = pause or Pause(clock)

    def run(self, attempt: Callable[[], T]) -> T:
        """The result of ``attempt``; its last error when it keeps failing. Only temporary errors are retried."""
        started = self._clock.monotonic()
        self.await_pause()
        for number in range(1, self._options.max_attempts):
            try:
                return attempt()
            except RegistrySyncError as problem:  # noqa: PERF203 - the loop is about errors
                if not problem.is_temporary:
                    raise
                self.wait_after(problem, number, started)
        return attempt()

    def wait_after(self, problem: RegistrySyncError, number: int, started: float) -> None:
        """Sleeps before attempt ``number + 1``; raises ``problem`` when that would be too long."""
        requested = problem.retry_after_seconds if isinstance(problem, RegistryError) else None
        wait = requested if requested is not None else min(backoff_seconds(number), self._options.longest_wait_seconds)
        spent = self._clock.monotonic() - started
        # The error for the floor has no status: it concerns pulls alone.
        is_limited = isinstance(problem, RegistryError) and problem.status in SLOWING_STATUSES
        if wait > self._options.longest_wait_seconds or spent + wait > self._options.retry_budget_seconds:
            if is_limited and requested is not None and isinstance(problem, RegistryError):
                self.pause.refuse(requested, problem)
            raise problem
        self._usage.add("retry_count")
        self._usage.record_wait(wait)
        if is_limited or isinstance(problem, RateLimited):
            self.pause.extend(wait)
        self._clock.sleep(wait)

    def await_pause(self) -> None:
        """Waits while the registry accepts no requests; a pause applies to all threads of a client.

        Where the pause is too long, raises the registry's error with the remaining wait, without a request.
        """
        self.pause.wait(self._options.longest_wait_seconds)


def backoff_seconds(number: int) -> float:
    """A random wait after the ``number``-th failure, between nothing and a bound that doubles each time."""
    return random.uniform(0, min(LONGEST_BACKOFF_SECONDS, FIRST_BACKOFF_SECONDS * 2 ** (number - 1)))


log = logging.getLogger(__name__)
_WARNING = re.compile(r'299 - "((?:[^"\\]|\\.)*)"')
MAX_WARNING_BYTES = 4096


@lru_cache(maxsize=64)
def _repository_scope(repository: str) -> str:
    """As :func:`repository_scope`; a repository is requested many times in a row."""
    return repository_scope(RepositoryName(repository))


def _scope(request_context: RequestContext) -> str | None:
    """The scope of a token for the request; None where it needs none."""
    if request_context.repository:
        return _repository_scope(request_context.repository)
    return CATALOG_SCOPE if request_context.kind == "catalog" else None


class Requester:
    """Sends requests to one registry; shared by all threads of a client."""

    def __init__(
        self, transport: Transport, authenticator: Authenticator, retry: Retry, clock: Clock, usage: Usage
    ) -> None:
        self._transport = transport
        self._authenticator = authenticator
        self.clock = clock
        self.retry = retry
        self.usage = usage

    def target(self, path: str) -> Target:
        """The target ``path`` on the registry."""
        return Target(self._transport.own, path)

    def slot(self) -> AbstractContextManager[None]:
        """Surrounds a request to the end of its body, as :meth:`Concurrency.slot`; :meth:`send` has one by itself."""
        return self._transport.concurrency.slot()

    def send(
        self,
        method: str,
        target: Target,
        request_context: RequestContext,
        headers: Mapping[str, str],
        read: Callable[[Response], T],
        *,
        accepted: frozenset[int] = frozenset({200}),
        started: StartedRequest | None = None,
    ) -> T:
        """The result of ``read`` on the response; requested and read again after temporary errors.

        ``started`` is a request that :meth:`send_heads` has left, to go on from.
        """

        def attempt() -> T:
            with self.slot():
                response = self.send_once(method, target, request_context, headers, accepted=accepted, started=started)
                try:
                    return read(response)
                except BaseException:
                    response.abandon()
                    raise

        return self.retry.run(attempt)

    def send_once(
        self,
        method: str,
        target: Target,
        request_context: RequestContext,
        headers: Mapping[str, str],
        *,
        accepted: frozenset[int] = frozenset({200}),
        started: StartedRequest | None = None,
    ) -> Response:
        """The response, when its status is in ``accepted``. Raises the errors of other statuses.

        A 401 is handled by :class:`~registry_sync.oci.auth.authenticator.Login`; the body of one that is accepted has
        been read.
        """
        goes_on = started is not None and not started.is_taken
        login = started.login if started and goes_on else self._authenticator.login(_scope(request_context))
        send = partial(self._transport.follow, method, target, headers, login, started=started)
        return self._response(send, login, request_context, accepted)

    def send_heads(
        self,
        place: Target,
        names: Sequence[str],
        request_context: RequestContext,
        headers: Mapping[str, str],
        done: Callable[[str, JoinedHeaders], bool],
        *,
        most: Callable[[], int],
    ) -> HeadsLeft:
        """HEADs of ``names`` below ``place``, as :class:`~registry_sync.oci.http.many_heads.ManyHeads`.

        None is sent where the registry has not responded before, or is reached by a proxy.
        """
        if not names or self._transport.pools.is_proxied or not self._authenticator.has_learned:
            return HeadsLeft(waiting=deque(names))

        def authorize() -> tuple[Login, str | None]:
            login = self._authenticator.login(_scope(request_context))
            return login, login.authorization(self._transport.rate.wait)

        self._transport.gate.check_name(place.origin.host)
        pause = self.retry.pause
        many = ManyHeads(
            self._transport,
            place,
            names,
            headers=headers,
            authorize=authorize,
            may_send=lambda: pause.is_over,
            done=done,
        )
        return many.send(most)

    def send_aside(
        self, target: Target, request_context: RequestContext, headers: Mapping[str, str], *, actions: str
    ) -> Response:
        """The response 200 to a GET of another API of the registry itself; raises other statuses, and redirects.

        ``actions`` on the repository are what a token is requested for, by a challenge that counts here alone.
        """
        scope = repository_scope(RepositoryName(request_context.repository), actions)
        login = self._authenticator.login(scope, is_aside=True)
        send = partial(self._transport.follow, "GET", target, headers, login)
        response = self._response(send, login, request_context, frozenset({200}))
        if response.redirected_by is not None:
            response.abandon()
            raise response.protocol_error(f"{target.origin.netloc} redirects to {response.target.origin.netloc}")
        return response

    def send_with(
        self,
        target: Target,
        request_context: RequestContext,
        headers: Mapping[str, str],
        *,
        authorization: str | None,
    ) -> Response:
        """The response 200 to a GET with exactly this ``Authorization``; raises other statuses, redirects among them.

        To another host than the registry nothing is sent as ``Authorization``.
        """
        self.retry.await_pause()
        fixed = FixedAuthorization(authorization)
        response = self._transport.send("GET", target, headers, login=fixed, is_aside=True)
        self.usage.record_status(response.status)
        if response.status == 200:
            return response
        raise self.error(response, request_context)

    def _response(
        self, send: Callable[[], Response], login: Login, request_context: RequestContext, accepted: frozenset[int]
    ) -> Response:
        """The response to the last of the requests that ``send`` makes with ``login``."""
        refusal: tuple[Response, tuple[str, ...]] | None = None
        while True:
            with self._authenticator.discovery():
                try:
                    response = send()
                except NoAuthorizationLeft:
                    if refusal is None:
                        raise
                    return self._refused(refusal, request_context, accepted)
                self.usage.record_status(response.status)
                if response.status != 401 or response.target.origin != self._transport.own:
                    break
                # Read first: a token may be requested from the same host, which must not wait for this connection.
                refusal = response, read_error_body(response)[0]
                try:
                    is_refused = login.is_refused(response.header("WWW-Authenticate"), response.target)
                except ChallengeInvalid as problem:
                    problem.redirected_by = response.redirected_by
                    raise
            if is_refused:
                return self._refused(refusal, request_context, accepted)
        if (warning := response.header("Warning")) is not None:
            self._log_warning(warning)
        if response.status in accepted:
            return response
        raise self.error(response, request_context)

    def _refused(
        self, refusal: tuple[Response, tuple[str, ...]], request_context: RequestContext, accepted: frozenset[int]
    ) -> Response:
        response, codes = refusal
        if 401 in accepted:
            return response
        raise self.unauthorized(response, request_context, codes)

    def unauthorized(
        self, response: Response, request_context: RequestContext, codes: tuple[str, ...]
    ) -> RegistryError:
        """The error of a final 401; ``codes`` are those of its body, which has been read."""
        host = response.target.origin.netloc
        try:
            challenges = parse_challenges(response.header("WWW-Authenticate") or "")
        except RegistryError:
            challenges = ()
        context: dict[str, Any] = {
            "host": host,
            "repository": request_context.repository,
            "method": response.method,
            "url": response.target.url,
            "status": 401,
            "redirected_by": response.redirected_by,
        }
        if self._authenticator.is_anonymous:
            message = unavailable_message(host, request_context, 401, "", is_anonymous=True)
            return RepositoryUnavailable(message, codes=codes, **context)
        if not any(challenge.is_about_scope for challenge in challenges):
            return AuthenticationFailed(
                f"{host} rejects the credentials of the connection for {request_context}: "
                "they are wrong or do not reach it"
                + (", or it does not exist there" if request_context.repository else ""),
                codes=codes,
                **context,
            )
        if known_registry(host).hides_existence:
            message = unavailable_message(host, request_context, 401, "", is_anonymous=False)
            return RepositoryUnavailable(message, codes=codes, **context)
        return AccessDenied(denied_message(host, request_context, ""), codes=codes, **context)

    def error(self, response: Response, request_context: RequestContext) -> RegistryError:
        """The error for ``response``, which is consumed."""
        return error_of(
            response,
            request_context,
            is_anonymous=self._authenticator.is_anonymous,
            now=self.clock.now(),
            scrub=lambda text: scrubbed(text, self._authenticator.secrets()),
        )

    def _log_warning(self, header: str) -> None:
        for text in warnings_in(header):
            if self.usage.record_warning(text):
                log.warning("%s warns: %s", self._transport.own.netloc, text)


def warnings_in(header: str) -> Iterator[str]:
    """The printable texts of a ``Warning`` header in the specified form; others are skipped.

    Follows the distribution specification, "Warnings".
    """
    for match in _WARNING.finditer(header[:MAX_WARNING_BYTES]):
        text = re.sub(r"\\(.)", r"\1", match[1])
        if text.isprintable():
            yield text


class ChallengeProbe:
    """The challenge of ``/v2/``, requested once: some registries omit it everywhere else."""

    def __init__(self, transport: Transport) -> None:
        self._transport = transport
        self._lock = threading.Lock()
        self._header: str | None = None
        self._is_known = False

    def __call__(self) -> tuple[str | None, Target]:
        """The header, None when ``/v2/`` has none either, and the target that sent it."""
        target = Target(self._transport.own, "/v2/")
        with self._lock:
            if not self._is_known:
                response = self._transport.follow("GET", target, {})
                self._header = response.header("WWW-Authenticate") if response.status == 401 else None
                response.discard()
                self._is_known = True
        return self._header, target
