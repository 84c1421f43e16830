"""Whether a registry can be reached at all: the name resolves, somebody accepts the connection, and speaks TLS there.

Whatever responds is in reach, also with a refusal, a rate limit or a wrong certificate: a sync reports these better.
"""

from __future__ import annotations

import http.client
import socket
import ssl
import threading
import urllib.parse

#: Longer than a registry takes to respond over a slow line, and short enough to wait for at a terminal.
TIMEOUT_SECONDS = 5.0


def why_out_of_reach(url: str, timeout_seconds: float = TIMEOUT_SECONDS) -> str | None:
    """What keeps this machine from the registry at ``url``; None when it responds, whatever it says.

    Takes no longer than ``timeout_seconds``, also where the resolver of names does. Asks directly, as a sync does that
    has no connection with a proxy.
    """
    reasons: list[str | None] = []
    probe = threading.Thread(target=lambda: reasons.append(_probe(url, timeout_seconds)), daemon=True)
    probe.start()
    probe.join(timeout_seconds)
    return reasons[0] if reasons else f"no response within {timeout_seconds:g} seconds"


def _probe(url: str, timeout_seconds: float) -> str | None:
    parts = urllib.parse.urlsplit(url)
    name = parts.hostname or ""
    kind = http.client.HTTPSConnection if parts.scheme == "https" else http.client.HTTPConnection
    connection = kind(name, parts.port, timeout=timeout_seconds)
    try:
        connection.request("GET", "/v2/")
        connection.getresponse()
    except socket.gaierror:
        return f"the name {name} cannot be resolved"
    except TimeoutError:
        return f"no response within {timeout_seconds:g} seconds"
    except OSError as problem:
        return _reason(problem)
    except http.client.HTTPException:
        return None
    finally:
        connection.close()
    return None


def _reason(problem: OSError) -> str | None:
    """What a failed connection means; None when somebody is there: a certificate, or a response that breaks off."""
    if isinstance(problem, (ssl.SSLEOFError, ssl.SSLZeroReturnError)):
        return "the connection is cut off"
    if isinstance(problem, (ssl.SSLError, http.client.RemoteDisconnected)):
        return None
    return (problem.strerror or str(problem)).lower()
