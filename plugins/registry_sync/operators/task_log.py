"""What the log of a task says: one line for an error that is understood, and warnings in a run that goes on.

Airflow's task runner logs whatever ends a task with its traceback. For an error of ours the message says what happened
and what to do, and the frames are those of Airflow. So the record is made one line on its way into the log; the
traceback is there at level DEBUG. A defect keeps its traceback.
"""

from __future__ import annotations

import logging
import sys
from collections.abc import MutableMapping
from typing import Any

from registry_sync.errors import RegistrySyncError

log = logging.getLogger(__name__)


class TaskReport:
    """Lines of a stage in the log of its task; ``warning`` for what a person should look at though the run goes on."""

    def __init__(self, logger: Any) -> None:
        self._logger = logger

    def __call__(self, line: str) -> None:
        self._logger.info("%s", line)

    def warning(self, line: str) -> None:
        """A line that stands out."""
        self._logger.warning("%s", line)


def log_errors_in_one_line() -> None:
    """From now on this process logs errors of ours, and stops because of them, without a traceback.

    Safe when repeated. Where Airflow logs in another way than it does now, the traceback stays.
    """
    import structlog

    processors = structlog.get_config()["processors"]
    if isinstance(processors, list) and _in_one_line not in processors:
        processors.insert(0, _in_one_line)


def _in_one_line(_logger: Any, _method: str, event: MutableMapping[str, Any]) -> MutableMapping[str, Any]:
    problem = _exception(event.get("exc_info"))
    line = None if problem is None else _line(problem)
    if line is None:
        return event
    log.debug("the traceback of the error", exc_info=problem)
    event["event"] = line
    del event["exc_info"]
    return event


def _exception(given: Any) -> BaseException | None:
    """The exception that a log record is given: itself, ``True`` for the one being handled, or a triple."""
    if given is True:
        return sys.exc_info()[1]
    if isinstance(given, tuple) and len(given) > 1:
        given = given[1]
    return given if isinstance(given, BaseException) else None


def _line(problem: BaseException) -> str | None:
    """The error in one line; None when it is none of ours."""
    if isinstance(problem, RegistrySyncError):
        return " ".join(f"{type(problem).__name__}: {problem}".split())
    return " ".join(str(problem).split()) if isinstance(problem.__cause__, RegistrySyncError) else None
