"""Sends a client's requests: follows redirects itself and translates the HTTP library's errors.

``Authorization`` goes to the registry's own origin and nowhere else (distribution specification, "API"); it is set for
each hop and never copied to the next.
"""

from __future__ import annotations

import logging
from collections.abc import Callable, Mapping
from typing import TYPE_CHECKING
from urllib.parse import parse_qs, quote

from urllib3.exceptions import HTTPError
from urllib3.util import Retry

from registry_sync.domain.remote import FIRST_CONCURRENCY
from registry_sync.errors import RedirectRefused, RegistrySyncError
from registry_sync.oci.http.concurrency import Concurrency, SentRequest
from registry_sync.oci.http.connections import ConnectionPools, OpeningConnections, TargetHeaders
from registry_sync.oci.http.options import ClientOptions, Clock
from registry_sync.oci.http.origins import AddressGate, Origin, Target
from registry_sync.oci.http.rate_limits import SLOWING_STATUSES, AccountBudget, RequestRate
from registry_sync.oci.http.received import WholeResponse
from registry_sync.oci.http.responses import (
    PROXY_AUTHENTICATION_REQUIRED,
    Pace,
    Response,
    converted,
    proxy_refusal,
    read_bytes,
)

if TYPE_CHECKING:
    from registry_sync.oci.auth.authenticator import FixedAuthorization, Login
    from registry_sync.oci.http.many_heads import StartedRequest

log = logging.getLogger(__name__)
REDIRECT_STATUSES = frozenset({301, 302, 303, 307, 308})
MAX_REDIRECTS = 10
#: Threads beyond the concurrency wait for a connection; this long only when the others hang.
LONGEST_WAIT_FOR_CONNECTION_SECONDS = 600
#: Errors are raised as they are, and redirects returned: what urllib3 makes of False, for each request anew.
_NO_RETRIES = Retry.from_int(False, redirect=False)


def _kind(method: str, path: str) -> str:
    """What requests have in common that take a registry equally long."""
    return f"{method} {next((part for part in ('manifests', 'blobs') if f'/{part}/' in path), 'other')}"


class _Sending:
    """Called when a request has its connection and is sent: ``request`` is None until then."""

    def __init__(self, concurrency: Concurrency, kind: str) -> None:
        self._concurrency, self._kind = concurrency, kind
        self.on_send: Callable[[], None] | None = None
        self.request: SentRequest | None = None

    def __call__(self) -> None:
        self.request = self._concurrency.send(self._kind)
        if self.on_send is not None:
            self.on_send()


class Transport:
    """Sends requests; shared by all threads of a client."""

    def __init__(self, own: Origin, options: ClientOptions, clock: Clock, budget: AccountBudget | None = None) -> None:
        self.own = own
        self.gate = AddressGate(own.host, options.private_hosts | options.trusted_realm_hosts)
        #: The headers of the last HEADs to the registry, and their lines.
        self.head_lines: tuple[Mapping[str, str], bytes] | None = None
        self.pools = ConnectionPools(own, options, self.gate)
        self._pace = Pace(options.throughput_window_seconds, options.minimum_bytes_per_second, clock)
        self.clock = clock
        self._namespace = options.namespace
        self.concurrency = Concurrency(options.concurrency, clock)
        self.rate = RequestRate(options.requests_per_second, clock, min(options.concurrency, FIRST_CONCURRENCY), budget)
        self.user_agent = options.user_agent

    def send(
        self,
        method: str,
        target: Target,
        headers: Mapping[str, str],
        *,
        body: bytes | None = None,
        login: Login | FixedAuthorization | None = None,
        is_aside: bool = False,
    ) -> Response:
        """The response of exactly ``target``, whatever its status. Raises the errors of :func:`converted`.

        ``login`` authorizes a request to the registry itself, at its turn; raises what that raises. One to another host
        that ``is_aside``, and belongs to no request to the registry, keeps to the registry's rate and does not slow it
        down.
        """
        origin = target.origin
        self.gate.check_name(origin.host)
        sent = TargetHeaders(headers)
        sent["User-Agent"] = self.user_agent
        sent.setdefault("Accept-Encoding", "identity")
        sent.target = target.path
        if self.pools.is_proxied and origin.scheme == "http":
            sent.target = target.url
        sending = sent.on_send = _Sending(self.concurrency, _kind(method, target.path))
        requested_at = self.rate.wait() if is_aside and origin != self.own else self.clock.monotonic()
        if origin == self.own:
            requested_at = self.rate.wait()
            if login is not None and (authorization := login.authorization(self.rate.wait)) is not None:
                sent["Authorization"] = authorization
                sending.on_send = login.record_sent
        # urllib3 logs the URL that it gets, and queries can be signatures.
        url = sent.target.partition("?")[0]
        try:
            received = self.pools.pool(origin).urlopen(
                method,
                url,
                body=body,
                headers=sent,
                redirect=False,
                retries=_NO_RETRIES,
                assert_same_host=False,
                pool_timeout=LONGEST_WAIT_FOR_CONNECTION_SECONDS,
                preload_content=False,
                decode_content=False,
            )
        except (HTTPError, OSError, ValueError) as problem:
            raise converted(problem, method, target) from problem
        at_once = read_bytes(self.concurrency.limit)
        response = Response(received, method, target, self._pace, read_bytes=at_once)
        if login is not None and origin == self.own:
            response.authorization_bytes = len(sent.get("Authorization", ""))
        if origin == self.own or not is_aside:
            self.record_status(response.status, origin, requested_at, sending.request)
        if response.status == PROXY_AUTHENTICATION_REQUIRED and self.pools.is_proxied:
            response.discard()
            raise proxy_refusal(response.status, origin.netloc)
        return response

    def response_to_head(self, received: WholeResponse, target: Target) -> Response:
        """A response that came without :meth:`send`."""
        return Response(received, "HEAD", target, self._pace)

    def follow(
        self,
        method: str,
        target: Target,
        headers: Mapping[str, str],
        login: Login | None = None,
        *,
        started: StartedRequest | None = None,
    ) -> Response:
        """The response at the end of the redirects of a GET or HEAD. Raises :class:`RedirectRefused`.

        ``started`` is the first of these requests, where it was sent before and not gone on from.
        """
        target = self.with_namespace(target)
        requested_host, has_moved = target.origin.netloc, False
        for _ in range(MAX_REDIRECTS + 1):
            try:
                if started is not None and not started.is_taken:
                    response = started.take()
                else:
                    response = self.send(method, target, headers, login=login)
            except RegistrySyncError as problem:
                if not has_moved:
                    raise
                explained = problem.with_message(f"{problem.message}; {requested_host} redirects there")
                explained.redirected_by = requested_host
                raise explained from problem
            response.redirected_by = requested_host if has_moved else None
            if response.status not in REDIRECT_STATUSES:
                return response
            target, has_moved = self._next_hop(response), True
        raise RedirectRefused(
            f"{self.own.netloc} redirects more than {MAX_REDIRECTS} times", host=self.own.netloc, method=method
        )

    def record_status(
        self, status: int, origin: Origin, requested_at: float, request: SentRequest | None = None
    ) -> None:
        """Makes fewer requests to the registry when it, or a host that it redirects to, gets too many.

        ``request`` is None for one that is not counted among those at once.
        """
        if status not in SLOWING_STATUSES:
            if request is not None and origin == self.own:
                self.concurrency.record_response(request)
            return
        rate = self.rate.slow_down(requested_at)
        is_reduced = request is not None and self.concurrency.record_refusal(request)
        if rate is None and not is_reduced:
            return
        log.info(
            "%s responds %d; requests to %s are limited to %s%d at once for now, and gradually more",
            origin.netloc,
            status,
            self.own.netloc,
            "" if rate is None else f"{rate:.3g} a second and ",
            self.concurrency.limit,
        )

    def with_namespace(self, target: Target) -> Target:
        """``target`` with the configured namespace, if any. Targets of redirects are not changed."""
        if self._namespace is None:
            return target
        path, _, query = target.path.partition("?")
        is_content = target.origin == self.own and path.startswith("/v2/") and path != "/v2/"
        if not is_content or "ns" in parse_qs(query):
            return target
        return target._replace(path=f"{path}?{query}{'&' if query else ''}ns={quote(self._namespace, safe=':')}")

    def open_more(self, count: int, *, head_start_seconds: float = 0.0) -> OpeningConnections:
        """Opens ``count`` more connections to the registry beside the caller, as many as requests may be under way."""
        most = self.concurrency.limit
        return self.pools.open_more(self.own, count, most, head_start_seconds=head_start_seconds)

    def close(self) -> None:
        """Closes idle connections. The transport stays usable and opens new ones."""
        self.pools.close()

    def _next_hop(self, response: Response) -> Target:
        location = response.header("Location")
        response.discard()
        host = response.target.origin.netloc
        if not location:
            raise response.protocol_error(f"{host} responds {response.status} without a Location")
        try:
            following = Target.parse(location, relative_to=response.target)
        except ValueError as problem:
            raise RedirectRefused(
                f"{host} redirects to a URL that cannot be followed: {problem}", host=host, method=response.method
            ) from None
        if following.origin.scheme == "http" and "https" in (response.target.origin.scheme, self.own.scheme):
            raise RedirectRefused(
                f"{host} redirects from https to plain http at {following.origin.netloc}",
                host=host,
                method=response.method,
                url=following.url,
            )
        return following
