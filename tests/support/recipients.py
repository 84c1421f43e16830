"""Who is notified, on loopback: a mail server that keeps what it is sent, and a webhook that keeps what is posted."""

from __future__ import annotations

import json
import socketserver
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from email import message_from_bytes, policy
from email.message import EmailMessage
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Any, cast


class _Mails(socketserver.StreamRequestHandler):
    """The part of SMTP (RFC 5321) that a client without TLS and login needs."""

    def handle(self) -> None:
        self._say("220 mail ready")
        while line := self.rfile.readline():
            word = line.split()[0].upper().decode() if line.split() else ""
            if word == "DATA":
                self._say("354 go on")
                lines = []
                while (part := self.rfile.readline()) != b".\r\n":
                    lines.append(part.removeprefix(b".") if part.startswith(b"..") else part)
                mail = message_from_bytes(b"".join(lines), policy=policy.default)
                self.server.mails.append(mail)  # type: ignore[attr-defined]
            self._say("221 bye" if word == "QUIT" else "250 ok")
            if word == "QUIT":
                return

    def _say(self, line: str) -> None:
        self.wfile.write(f"{line}\r\n".encode())


class MailServer(socketserver.ThreadingTCPServer):
    """``mails`` are those received, in order."""

    daemon_threads = False

    def __init__(self) -> None:
        super().__init__(("127.0.0.1", 0), _Mails)
        self.mails: list[EmailMessage] = []

    @property
    def port(self) -> int:
        return int(self.server_address[1])

    def texts(self) -> list[str]:
        """Subject and text of each."""
        return [f"{mail['Subject']}\n{cast('EmailMessage', mail.get_body()).get_content()}" for mail in self.mails]


class _Posts(BaseHTTPRequestHandler):
    def do_POST(self) -> None:
        body = self.rfile.read(int(self.headers["Content-Length"]))
        self.server.posted.append(json.loads(body))  # type: ignore[attr-defined]
        self.send_response(self.server.status)  # type: ignore[attr-defined]
        self.send_header("Content-Type", "application/json")
        self.send_header("Content-Length", str(len(self.server.body)))  # type: ignore[attr-defined]
        self.end_headers()
        self.wfile.write(self.server.body)  # type: ignore[attr-defined]

    def log_message(self, *_what: Any) -> None:
        """Nothing."""


class Webhook(ThreadingHTTPServer):
    """``posted`` are the documents received, in order; each is answered with ``status`` and ``body``."""

    daemon_threads = False

    def __init__(self) -> None:
        super().__init__(("127.0.0.1", 0), _Posts)
        self.posted: list[dict[str, Any]] = []
        self.status, self.body = 204, b""

    @property
    def url(self) -> str:
        return f"http://127.0.0.1:{self.server_address[1]}/hook"


@contextmanager
def serving(server: socketserver.BaseServer) -> Iterator[None]:
    """Serves in a thread until the end."""
    thread = threading.Thread(target=server.serve_forever, kwargs={"poll_interval": 0.02})
    thread.start()
    try:
        yield
    finally:
        server.shutdown()
        server.server_close()
        thread.join()


def connections(mails: MailServer, webhook: Webhook) -> dict[str, str]:
    """The environment with the connections ``mail`` and ``hook``."""
    arguments = {"to": "team@example.org"}
    extra = {
        "disable_ssl": True,
        "disable_tls": True,
        "from_email": "airflow@example.org",
        "notifier_arguments": arguments,
    }
    mail = {"conn_type": "smtp", "host": "127.0.0.1", "port": mails.port, "extra": extra}
    hook = {"conn_type": "http", "host": webhook.url}
    return {"AIRFLOW_CONN_MAIL": json.dumps(mail), "AIRFLOW_CONN_HOOK": json.dumps(hook)}
