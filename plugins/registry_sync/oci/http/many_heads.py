"""Many HEADs to the registry from one thread, over connections that are open already.

A request for each tag is most of what a mirror costs that has not changed. Here it costs what the bytes do: the request
differs from the one before it in its path alone, and a response in the form of the specification is split at its
colons. Connections are urllib3's, which made and checked them; none is opened here, as that would keep all others
waiting; where requests take long, the pool opens more of them meanwhile. Each keeps the slot of its request, and the
rate, the pause and the budget of a registry are asked before each.

Whatever is no plain 200 is left to the usual path: it goes on from the response that has come, so that a refusal is
followed by what follows it there, and nothing is requested twice. While one is left, no other request is sent.
"""

from __future__ import annotations

import http.client
import io
import re
import select
import ssl
import time
from collections import deque
from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass, field
from http.client import HTTPException, RemoteDisconnected
from typing import TYPE_CHECKING, Any

from urllib3.exceptions import ProtocolError as BrokenConnection
from urllib3.exceptions import ReadTimeoutError, SSLError

from registry_sync.errors import RegistryError, RegistrySyncError
from registry_sync.oci.http.connections import OpeningConnections, put_back, take_open
from registry_sync.oci.http.origins import Target
from registry_sync.oci.http.received import HEADER_LINES, MAX_LINE_BYTES, JoinedHeaders, PunctualResponse, WholeResponse
from registry_sync.oci.http.responses import Response, converted

if TYPE_CHECKING:
    from registry_sync.oci.auth.authenticator import Login
    from registry_sync.oci.http.concurrency import SentRequest
    from registry_sync.oci.http.transport import Transport

#: Requests take longer than this on average, after a few that may: more connections are worth their opening.
SLOW_SECONDS = 0.005
_UNCOUNTED = 4
#: Where no connection was free, others are awaited for so long while requests are under way.
PATIENCE_SECONDS = 0.005
#: An authorization is read again when it is older; a token has some seconds left when it is given.
AUTHORIZATION_SECONDS = 0.2
_RECEIVED_BYTES = 16 * 1024
_OK = re.compile(rb"HTTP/1\.1 200[ \r]")
_STATUS = re.compile(rb"HTTP/1\.[01] (\d{3})[ \r\n]")
_END = re.compile(rb"\n\r?\n")


class StartedRequest:
    """A request that was sent, and what came of it: a response, or the error in its place; to go on from, once."""

    def __init__(self, login: Login, outcome: Response | RegistrySyncError) -> None:
        self.login = login
        self._outcome: Response | RegistrySyncError | None = outcome

    @property
    def is_taken(self) -> bool:
        """Whether it was gone on from."""
        return self._outcome is None

    @property
    def status(self) -> int | None:
        """The status of the response, None where there was none, or it was gone on from."""
        return self._outcome.status if isinstance(self._outcome, (Response, RegistryError)) else None

    def take(self) -> Response:
        """The response. Raises the error in its place."""
        outcome, self._outcome = self._outcome, None
        if isinstance(outcome, RegistrySyncError):
            raise outcome
        if outcome is None:
            raise RuntimeError("a response is gone on from once")
        return outcome


@dataclass
class HeadsLeft:
    """The names that are left: ``started`` were requested, and are gone on with; ``waiting`` were not."""

    started: dict[str, StartedRequest] = field(default_factory=dict)
    waiting: deque[str] = field(default_factory=deque)


@dataclass
class _Sent:
    """A request under way on a connection."""

    connection: Any
    name: str
    login: Login
    sent_at: float
    turn_at: float
    request: SentRequest
    received: bytes = b""


class ManyHeads:
    """HEADs of ``names`` below ``place``, as ``headers`` and the ``authorize`` of a login make them.

    ``place`` is a target that ends where the names begin. ``authorize`` gives a login and its ``Authorization``; what
    it raises is left to the usual path. ``may_send`` says whether the registry accepts requests now. ``done`` is called
    with a name and the headers of its response, status 200, and says whether that was all; else the response is left.
    """

    def __init__(
        self,
        transport: Transport,
        place: Target,
        names: Iterable[str],
        *,
        headers: Mapping[str, str],
        authorize: Callable[[], tuple[Login, str | None]],
        may_send: Callable[[], bool],
        done: Callable[[str, JoinedHeaders], bool],
    ) -> None:
        self._transport = transport
        self._concurrency = transport.concurrency
        self._place = place
        self._headers = headers
        self._authorize = authorize
        self._may_send = may_send
        self._done = done
        self._left = HeadsLeft(waiting=deque(names))
        self._suffix = transport.with_namespace(place).path[len(place.path) :]
        self._pool: Any = transport.pools.pool(place.origin)
        self._poll = select.poll()
        self._sent: dict[int, _Sent] = {}
        #: Connections that are held, with a slot each, and on which nothing is under way.
        self._idle: list[Any] = []
        self._is_stopped = False
        self._lacks_connections = False
        #: The connections that were opened last, and how many requests were answered until then.
        self._opening: OpeningConnections | None = None
        self._opened_after = -1
        #: How many of them were open when nothing was under way and one was looked for.
        self._looked_for_count = 0
        self._asks_again_at = float("-inf")
        self._answered_count = 0
        self._began_at = 0.0
        self._login: Login | None = None
        self._authorization_bytes = 0
        self._authorized_at = float("-inf")
        self._start = self._end = b""

    def send(self, most: Callable[[], int]) -> HeadsLeft:
        """Sends as many as ``most`` says at once, until one is left, or more would need a wait or the usual path."""
        self._began_at = time.monotonic()
        try:
            self._fill(most)
            while self._sent or self._awaits_connections():
                for number, _event in self._poll.poll(self._timeout_milliseconds()):
                    self._receive(self._sent[number])
                self._expire()
                self._fill(most)
        finally:
            for sent in self._sent.values():  # where an error ends it
                self._give_back(sent.connection, is_kept=False)
            for connection in self._idle:
                self._give_back(connection)
        return self._left

    # -- sending -------------------------------------------------------------------------------------------------

    def _fill(self, most: Callable[[], int]) -> None:
        """Sends on connections that are free, and gives those back that are not needed."""
        while not self._is_stopped and self._left.waiting and len(self._sent) < most() and self._hold_one():
            connection = self._idle.pop()
            if not _is_silent(connection.sock):
                # The server has closed it, or sends what nobody asked for.
                self._give_back(connection, is_kept=False)
            elif not self._send_next(connection):
                self._idle.append(connection)
                self._is_stopped = True
        if self._lacks_connections and not self._is_stopped and self._seconds_until_slow() <= 0:
            self._open_more(most)
        while self._idle:
            self._give_back(self._idle.pop())

    def _seconds_until_slow(self) -> float:
        """How long until requests have taken so long that more connections are worth their opening.

        Where the registry is known to be far away they are, as long as it gets no slower by more of them.
        """
        if self._concurrency.is_far:
            return 0.0
        return self._began_at + SLOW_SECONDS * (self._answered_count + _UNCOUNTED) - time.monotonic()

    def _open_more(self, most: Callable[[], int]) -> None:
        """Has connections opened for the names that wait, as many as may be; stops where that does not help."""
        if self._opening is not None and self._opening.left_count:
            return
        lacking_count = min(most() - len(self._sent), len(self._left.waiting))
        if lacking_count <= 0:
            return
        # Those opened last have served none: what is wrong is found by the usual path.
        if self._answered_count > self._opened_after:
            self._opened_after, self._looked_for_count = self._answered_count, 0
            self._opening = self._transport.open_more(lacking_count)
        self._is_stopped = self._opening is None or not self._opening.left_count + self._opening.opened_count

    def _awaits_connections(self) -> bool:
        """Waits a moment for one that is being opened; whether there may be one for the names that wait."""
        opening = self._opening
        if self._is_stopped or not self._left.waiting or opening is None:
            return False
        if opening.left_count:
            opening.wait(PATIENCE_SECONDS)
        elif opening.opened_count == self._looked_for_count:
            return False
        self._looked_for_count = opening.opened_count
        return True

    def _hold_one(self) -> bool:
        """Whether a connection is held that is free, by its slot too."""
        if self._idle:
            if self._concurrency.may_keep_slot:
                return True
            self._give_back(self._idle.pop())
        if self._sent and time.monotonic() < self._asks_again_at:
            return False
        if not self._concurrency.take_slot(must_wait=not self._sent):
            return False
        connection, has_place = take_open(self._pool)
        self._lacks_connections = connection is None and has_place
        if connection is None:
            self._asks_again_at = time.monotonic() + PATIENCE_SECONDS
            self._concurrency.free_slot()
            return False
        connection.sock.settimeout(0)
        self._poll.register(connection.sock, select.POLLIN)
        self._idle.append(connection)
        return True

    def _give_back(self, connection: Any, *, is_kept: bool = True) -> None:
        """To the pool, closed unless it ``is_kept``, and its slot to others."""
        self._poll.unregister(connection.sock)
        connection.sock.settimeout(connection.timeout)
        if not is_kept:
            connection.close()
        put_back(self._pool, connection)
        self._concurrency.free_slot()

    def _send_next(self, connection: Any) -> bool:
        """Sends the next request, unless it is to be left to the usual path."""
        if not self._may_send() or (turn_at := self._transport.rate.turn_now()) is None:
            return False
        now = time.monotonic()
        if now - self._authorized_at > AUTHORIZATION_SECONDS and not self._prepare(connection, now):
            return False
        login = self._login
        if login is None:
            return False
        name = self._left.waiting.popleft()
        number = connection.sock.fileno()
        sent = _Sent(connection, name, login, now, turn_at, self._concurrency.send("HEAD manifests"))
        self._sent[number] = sent
        try:
            _send_all(connection, b"%s%s%s" % (self._start, name.encode("ascii"), self._end))
        except OSError as problem:
            self._break(sent, problem)
        return True

    def _prepare(self, connection: Any, now: float) -> bool:
        """Makes what all requests have in common, by the usual writer of requests; whether that can be sent."""
        try:
            self._login, authorization = self._authorize()
        except RegistrySyncError:
            return False
        headers = {**self._headers, "User-Agent": self._transport.user_agent}
        headers.setdefault("Accept-Encoding", "identity")
        if authorization is not None:
            headers["Authorization"] = authorization
        self._authorization_bytes, self._authorized_at = len(authorization or ""), now
        before = self._transport.head_lines
        if before is None or before[0] != headers:  # those of the last HEADs, of another repository as well
            before = self._transport.head_lines = headers, _written_lines(connection, headers)
        self._start = b"HEAD %s" % self._place.path.encode("ascii")
        self._end = b"%s HTTP/1.1\r\n%s" % (self._suffix.encode("ascii"), before[1])
        return True

    # -- receiving -----------------------------------------------------------------------------------------------

    def _timeout_milliseconds(self) -> float:
        """Until a response is late, or another connection is worth looking for."""
        left = PATIENCE_SECONDS
        if self._sent:
            oldest = next(iter(self._sent.values()))
            left = float(oldest.sent_at + oldest.connection.timeout - time.monotonic())
        if self._lacks_connections and self._left.waiting and not self._is_stopped:
            left = min(left, max(self._seconds_until_slow(), PATIENCE_SECONDS))
        return max(0.0, left) * 1000 + 1

    def _receive(self, sent: _Sent) -> None:
        try:
            data = sent.connection.sock.recv(_RECEIVED_BYTES)
        except (BlockingIOError, ssl.SSLWantReadError):
            return
        except OSError as problem:
            self._break(sent, problem)
            return
        if not data and not sent.received:
            self._break(sent, RemoteDisconnected(_ENDED))
            return
        if not data:
            self._receive_other(sent, is_ended=True)
            return
        received = sent.received = sent.received + data if sent.received else data
        if received.endswith(b"\r\n\r\n") and received.find(b"\r\n\r\n") == len(received) - 4 and _OK.match(received):
            headers = HEADER_LINES.read(received)
            if headers is not None:
                self._end_plain(sent, headers)
                return
        self._receive_other(sent)

    def _end_plain(self, sent: _Sent, headers: JoinedHeaders) -> None:
        """Ends a request whose response is in the form of the specification, with nothing behind it."""
        self._end_request(sent, is_kept="close" not in headers.get("connection", "").lower())
        self._transport.record_status(200, self._place.origin, sent.turn_at, sent.request)
        self._answered_count += 1
        if not self._done(sent.name, headers):
            self._leave(sent, self._response(sent))

    def _receive_other(self, sent: _Sent, *, is_ended: bool = False) -> None:
        """Ends a request with any other response, once it is whole; with ``is_ended`` nothing more comes."""
        received = sent.received
        status, end = _STATUS.match(received), _END.search(received)
        while status and end and status[1] == b"100":
            status, end = _STATUS.match(received, end.end()), _END.search(received, end.end())
        if status and (end or is_ended):
            length = end.end() if end else len(received)
            self._end_other(sent, received[:length], is_last=length == len(received) and not is_ended)
            return
        if not (end or is_ended) and len(received) <= MAX_LINE_BYTES:
            return
        # No HTTP, or without end. It may belong to a request before: this one is sent again elsewhere.
        self._end_request(sent, is_kept=False)
        self._left.waiting.appendleft(sent.name)
        self._is_stopped = True

    def _end_other(self, sent: _Sent, block: bytes, *, is_last: bool) -> None:
        sent.received = block
        try:
            outcome: Response | RegistrySyncError = self._response(sent)
        except RegistrySyncError as problem:
            outcome = problem
        is_kept = is_last and isinstance(outcome, Response) and not self._closes(sent)
        self._end_request(sent, is_kept=is_kept)
        if not isinstance(outcome, Response):
            self._leave(sent, outcome)
            return
        self._transport.record_status(outcome.status, self._place.origin, sent.turn_at, sent.request)
        is_plain = _OK.match(block) and block.endswith(b"\r\n\r\n")
        headers = HEADER_LINES.read(block) if is_plain else None
        if headers is None or not self._done(sent.name, headers):
            self._leave(sent, outcome)
        else:
            self._answered_count += 1

    @staticmethod
    def _closes(sent: _Sent) -> bool:
        return _parsed(sent.received).will_close

    def _response(self, sent: _Sent) -> Response:
        """The response as the usual path makes it. Raises as that does."""
        target = self._target(sent)
        try:
            response = self._transport.response_to_head(WholeResponse.without_body(_parsed(sent.received)), target)
        except (HTTPException, OSError) as problem:
            raise converted(BrokenConnection("Connection aborted.", problem), "HEAD", target) from problem
        response.authorization_bytes = self._authorization_bytes
        return response

    def _break(self, sent: _Sent, problem: OSError) -> None:
        """Ends a request with what became of its connection."""
        self._end_request(sent, is_kept=False)
        broken = SSLError(problem) if isinstance(problem, ssl.SSLError) else None
        error = converted(broken or BrokenConnection("Connection aborted.", problem), "HEAD", self._target(sent))
        self._leave(sent, error)

    def _expire(self) -> None:
        """Ends requests whose responses take too long."""
        now = time.monotonic()
        for sent in list(self._sent.values()):
            if now - sent.sent_at < sent.connection.timeout:
                break  # as all that were sent after it
            self._end_request(sent, is_kept=False)
            late = ReadTimeoutError(self._pool, self._place.path, "Read timed out.")
            self._leave(sent, converted(late, "HEAD", self._target(sent)))

    def _end_request(self, sent: _Sent, *, is_kept: bool) -> None:
        connection = sent.connection
        del self._sent[connection.sock.fileno()]
        if is_kept:
            self._idle.append(connection)
        else:
            self._give_back(connection, is_kept=False)

    def _leave(self, sent: _Sent, outcome: Response | RegistrySyncError) -> None:
        self._is_stopped = True
        self._left.started[sent.name] = StartedRequest(sent.login.of_another(sent.turn_at), outcome)

    def _target(self, sent: _Sent) -> Target:
        return self._place._replace(path=f"{self._place.path}{sent.name}{self._suffix}")


#: Python's text for a connection that ends in place of a response.
_ENDED = "Remote end closed connection without response"


def _is_silent(sock: Any) -> bool:
    """Whether a connection is open, and nothing has come that nobody waits for."""
    try:
        sock.recv(1)
    except (BlockingIOError, ssl.SSLWantReadError):
        return True
    except OSError:
        return False
    return False


def _send_all(connection: Any, data: bytes) -> None:
    """Sends at once what fits, as nearly always all does, and waits with the rest."""
    sock = connection.sock
    try:
        count = sock.send(data)
    except (BlockingIOError, ssl.SSLWantWriteError, ssl.SSLWantReadError):
        count = 0
    if count < len(data):
        sock.settimeout(connection.timeout)
        sock.sendall(data[count:])
        sock.settimeout(0)


class _Writer(http.client.HTTPConnection):
    """Writes requests into ``written``."""

    written = b""

    def send(self, data: Any) -> None:
        self.written += data


def _written_lines(connection: Any, headers: Mapping[str, str]) -> bytes:
    """The headers of a HEAD as Python checks and writes them to ``connection``."""
    writer = _Writer(connection.host, connection.port)
    writer.default_port = connection.default_port
    writer.putrequest("HEAD", "/", skip_accept_encoding=True)
    for name, value in headers.items():
        writer.putheader(name, value)
    writer.endheaders()
    return writer.written.partition(b"\r\n")[2]


class _Received:
    """The bytes of a response, in place of the socket that they came from."""

    def __init__(self, data: bytes) -> None:
        self._data = data

    def makefile(self, _mode: str) -> io.BufferedReader:
        return io.BufferedReader(io.BytesIO(self._data))

    def gettimeout(self) -> None:
        """No time limits what has come."""


def _parsed(received: bytes) -> PunctualResponse:
    """A whole response to HEAD, as the usual path reads it. Raises as that does."""
    response = PunctualResponse(_Received(received), method="HEAD")  # type: ignore[arg-type]
    response.begin()
    return response
