"""The commands below ``airflow registry-sync``, which Airflow finds through the provider's ``cli`` entry.

Every ``airflow`` command loads them. So nothing is imported here, and the module of a command only when it runs.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from airflow.cli.cli_config import CLICommand


def get_cli_commands() -> list[CLICommand]:
    """The commands, as Airflow's parser reads them."""
    from registry_sync.cli.commands import COMMANDS

    return list(COMMANDS)
