"""Variables of the environment in values of a file: ``${NAME}``, ``${NAME:-default}``, ``${NAME:?what it is}``.

They are replaced in single values after the file was parsed, so that a value of a variable cannot add structure to the
file. ``$${`` is a literal ``${``. The variables that were used are kept, because what was compiled depends on them.
"""

from __future__ import annotations

import re
from collections.abc import Mapping

from registry_sync.fleet.yaml_text import Misread, Place

_VARIABLE = re.compile(r"\$\$\{|\$\{([A-Za-z_][A-Za-z0-9_]*)(?::([-?])([^{}]*))?\}|\$\{")


class Variables:
    """The environment as far as a file uses it: ``used`` has the value of each variable, None for one that is unset."""

    def __init__(self, environment: Mapping[str, str]) -> None:
        self._environment = environment
        self.used: dict[str, str | None] = {}

    def replace(self, text: str, at: Place) -> str:
        """``text`` with its variables replaced; an empty variable counts as unset for ``:-`` and ``:?``.

        Raises :class:`Misread` for one that is unset and has no default.
        """
        if "${" not in text:
            return text
        return _VARIABLE.sub(lambda found: self._value(found, at), text)

    def _value(self, found: re.Match[str], at: Place) -> str:
        if found[0] == "$${":
            return "${"
        name, operator, rest = found[1], found[2], found[3]
        if name is None:
            raise Misread(at, "${ begins no variable; expected ${NAME}, ${NAME:-default}, or $${ for ${ itself")
        value = self.used[name] = self._environment.get(name)
        if value or (value is not None and operator is None):
            return value
        if operator == "-":
            return rest
        hint = f": {rest}" if operator == "?" and rest else ""
        raise Misread(at, f"the environment variable {name} is {'empty' if value == '' else 'not set'}{hint}")
