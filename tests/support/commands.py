"""Command lines of ``airflow registry-sync``, run in the process of the test."""

from __future__ import annotations

from typing import Protocol


class Run(Protocol):
    """Runs a command line, given without ``airflow registry-sync`` before it."""

    def __call__(self, *words: str) -> None: ...
