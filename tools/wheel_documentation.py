"""A hook of the build: wheels have the documentation beside the modules; editable installations read the checkout's."""

from __future__ import annotations

from typing import Any

from hatchling.builders.hooks.plugin.interface import BuildHookInterface


class DocumentationHook(BuildHookInterface[Any]):
    """Adds the folder ``docs`` to wheels."""

    def initialize(self, version: str, build_data: dict[str, Any]) -> None:
        """As hatchling's; ``version`` is ``standard`` or ``editable``."""
        if version == "standard":
            build_data["force_include"]["docs"] = "registry_sync/documentation"
