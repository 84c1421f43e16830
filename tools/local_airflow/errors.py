"""What can go wrong with a local instance, each with a message for the person at the terminal."""

from __future__ import annotations


class LocalAirflowError(Exception):
    """The root. ``str()`` says what happened and what to do."""


class PortTaken(LocalAirflowError):
    """Another program listens on the port that was asked for."""


class StartFailed(LocalAirflowError):
    """A part of Airflow did not start; the message has its name and the end of its log."""


class NotRunning(LocalAirflowError):
    """There is no running instance to use."""


class ApiError(LocalAirflowError):
    """Airflow's REST API refused. ``status`` is the HTTP status, None when there was no answer."""

    def __init__(self, message: str, status: int | None = None) -> None:
        super().__init__(message)
        self.status = status


class DagBroken(LocalAirflowError):
    """The DAG cannot be imported, or does not appear."""


class SyncFailed(LocalAirflowError):
    """The run ended without success; the message names the task, the reason and the log."""
