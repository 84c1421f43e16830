"""The errors of a local instance, each with a message for the terminal."""

from __future__ import annotations


class LocalAirflowError(Exception):
    """The base class. ``str()`` says what happened and what to do."""


class PortTaken(LocalAirflowError):
    """Another program listens on the requested port."""


class StartFailed(LocalAirflowError):
    """A component of Airflow did not start; the message has its name and the end of its log."""


class NotRunning(LocalAirflowError):
    """No instance is running."""


class ApiError(LocalAirflowError):
    """Airflow's REST API refused a request. ``status`` is the HTTP status, None without a response."""

    def __init__(self, message: str, status: int | None = None) -> None:
        super().__init__(message)
        self.status = status


class DagBroken(LocalAirflowError):
    """The DAG cannot be imported, or does not appear."""


class SyncFailed(LocalAirflowError):
    """The run ended without success; the message names the task, the reason and the log."""


class SampleFailed(LocalAirflowError):
    """The sample registry did not start; the message has its log."""
