"""When a failed stage is tried again."""

from __future__ import annotations

from datetime import timedelta

import pytest
from airflow.sdk.definitions.retry_policy import RetryAction

from registry_sync.errors import DatabaseUnavailable, RateLimited, ServerUnavailable
from registry_sync.operators.stage import RegistryRetryPolicy


def decide(exception: BaseException):  # type: ignore[no-untyped-def]
    return RegistryRetryPolicy().evaluate(exception, 1, 4)


@pytest.mark.parametrize(
    "error",
    [
        RateLimited("slow down", host="hub.example", retry_after_seconds=120),
        ServerUnavailable("maintenance", host="hub.example", retry_after_seconds=120),
    ],
)
def test_the_delay_that_a_registry_requested_is_kept_and_its_host_named(error: RateLimited) -> None:
    decision = decide(error)
    assert decision.action is RetryAction.RETRY
    assert decision.retry_delay == timedelta(seconds=120)
    assert "hub.example" in (decision.reason or "")


def test_a_delay_of_years_is_cut_to_six_hours() -> None:
    decision = decide(RateLimited("slow down", host="hub.example", retry_after_seconds=1.7e9))
    assert decision.retry_delay == timedelta(hours=6)


@pytest.mark.parametrize("error", [RateLimited("slow down"), DatabaseUnavailable("gone"), OSError("odd")])
def test_without_a_delay_the_tasks_own_rules_hold(error: Exception) -> None:
    assert decide(error).action is RetryAction.DEFAULT


@pytest.mark.parametrize("defect", [NameError("x"), TypeError("x"), ModuleNotFoundError("x"), AttributeError("x")])
def test_a_defect_in_a_program_is_not_tried_again(defect: Exception) -> None:
    decision = decide(defect)
    assert decision.action is RetryAction.FAIL
    assert type(defect).__name__ in (decision.reason or "")


def test_it_survives_the_serialisation_of_a_dag() -> None:
    again = RegistryRetryPolicy.deserialize(RegistryRetryPolicy().serialize())
    assert isinstance(again, RegistryRetryPolicy)
