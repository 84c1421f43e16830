"""Statements are compiled once in a process for all SQLite databases of registry-sync, and copies for dry runs.

An engine keeps what it compiled, by its dialect. Tests make an engine for each of hundreds of databases, and compiling
for each anew takes more time than most of the tests do otherwise.
"""

from __future__ import annotations

from typing import Any

from sqlalchemy import Connection, Engine, event
from sqlalchemy.util import LRUCache

_CAPACITY = 5000
_shared: dict[tuple[Any, ...], tuple[Any, LRUCache[Any, Any]]] = {}


def share() -> None:
    """From now on; each engine takes part from its first connection on."""
    event.listen(Engine, "engine_connect", _take_part)


def _take_part(connection: Connection) -> None:
    engine = connection.engine
    is_ours = str(engine.url.database).endswith(("registry_sync.db", "copy.db"))
    if engine.name == "sqlite" and is_ours and type(engine) is Engine:
        alike = (type(engine.dialect), engine.dialect.server_version_info)
        dialect, compiled = _shared.setdefault(alike, (engine.dialect, LRUCache(_CAPACITY)))
        if engine._compiled_cache is not compiled:
            engine._compiled_cache = compiled
            engine.dialect = connection.dialect = dialect
