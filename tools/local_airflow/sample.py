"""The sample registry of :mod:`sample_registry` as a program that runs while one sync takes place."""

from __future__ import annotations

import contextlib
import fcntl
import http.client
import os
import subprocess
import tempfile
import time
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

from local_airflow.errors import SampleFailed
from local_airflow.layout import Layout
from local_airflow.ports import LOOPBACK, free_port, is_taken

#: The name of the sample on its registry, and of the repository that it is synced into.
NAME = "sample/hello-world"
START_SECONDS = 30
_POLL_SECONDS = 0.05


@dataclass(frozen=True)
class SampleRegistry:
    """Where the sample is served. ``has_moved`` says that it was at another port before."""

    url: str
    has_moved: bool


@contextlib.contextmanager
def sample_registry(layout: Layout) -> Iterator[SampleRegistry]:
    """Serves the sample until the block ends, at the same port each time if that is free. Others wait for their turn.

    Raises :class:`SampleFailed`.
    """
    layout.make_private()
    kept = layout.state / "sample-port"
    with kept.open("a+") as lock, tempfile.TemporaryDirectory(prefix="sample-", dir=layout.state) as folder:
        fcntl.flock(lock, fcntl.LOCK_EX)
        lock.seek(0)
        before = lock.read().strip()
        port = int(before) if before.isdecimal() and not is_taken(int(before)) else free_port()
        with _running(layout, Path(folder), port):
            kept.write_text(str(port))
            yield SampleRegistry(f"http://{LOOPBACK}:{port}", before not in ("", str(port)))


@contextlib.contextmanager
def _running(layout: Layout, folder: Path, port: int) -> Iterator[None]:
    tools = str(layout.checkout / "tools")
    log = layout.process_logs / "sample-registry.log"
    with log.open("wb") as output:
        process = subprocess.Popen(
            [str(layout.python), "-m", "sample_registry", str(folder), str(port)],
            env={**os.environ, "PYTHONPATH": os.pathsep.join([layout.search_path(), tools])},
            stdin=subprocess.PIPE,
            stdout=output,
            stderr=output,
            start_new_session=True,
        )
    with process:
        try:
            deadline = time.monotonic() + START_SECONDS
            while not _responds(port):
                if process.poll() is not None or time.monotonic() > deadline:
                    raise SampleFailed(f"The sample registry did not start; see {log}")
                time.sleep(_POLL_SECONDS)
            yield
        finally:
            process.terminate()


def _responds(port: int) -> bool:
    connection = http.client.HTTPConnection(LOOPBACK, port, timeout=1)
    try:
        connection.request("GET", f"/v2/{NAME}/tags/list")
        return connection.getresponse().status == http.client.OK
    except (OSError, http.client.HTTPException):
        return False
    finally:
        connection.close()
