"""When a failed stage is tried again: after the delay that the registry asked for, when it asked."""

from __future__ import annotations

from datetime import timedelta
from typing import Any

from airflow.sdk import RetryDecision, RetryPolicy

from registry_sync.errors import RateLimited, RegistryError

#: The longest delay that is taken from a registry; Docker Hub's limits last six hours.
LONGEST_DELAY = timedelta(hours=6)
#: What trying again does not mend.
DEFECTS = (AttributeError, ImportError, NameError, SyntaxError, TypeError)


class RegistryRetryPolicy(RetryPolicy):
    """Waits as long as the registry asked, holding no slot; a defect in a program fails at once.

    Anything else is retried by the task's own rules.
    """

    def evaluate(
        self,
        exception: BaseException,
        try_number: int,  # noqa: ARG002  the signature is Airflow's
        max_tries: int,  # noqa: ARG002
        context: Any = None,  # noqa: ARG002
    ) -> RetryDecision:
        """The decision for ``exception``; see :class:`airflow.sdk.RetryPolicy`."""
        if isinstance(exception, RegistryError) and exception.retry_after_seconds:
            delay = min(timedelta(seconds=exception.retry_after_seconds), LONGEST_DELAY)
            why = "is limiting requests" if isinstance(exception, RateLimited) else "is unavailable"
            return RetryDecision.retry(delay=delay, reason=f"{exception.host} {why}, try again in {delay}")
        if isinstance(exception, DEFECTS):
            return RetryDecision.fail(reason=f"a defect, not a passing failure: {type(exception).__name__}")
        return RetryDecision.default()

    def serialize(self) -> dict[str, Any]:
        """Nothing to keep: the policy has no parameters."""
        return {}

    @classmethod
    def deserialize(cls, data: dict[str, Any]) -> RegistryRetryPolicy:  # noqa: ARG003  as above
        """The policy."""
        return cls()
