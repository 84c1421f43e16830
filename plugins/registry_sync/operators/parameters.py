"""The values of a sync's parameters, checked one by one, so that an error names the parameter it is about.

Airflow's trigger form shows of a refusal by the API only that there was one. So the DAG's form takes any text, and the
first task refuses what cannot be right, in words that the note of the run shows: with the title that the form gives the
parameter.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from functools import partial
from typing import TYPE_CHECKING, Any

from registry_sync.errors import RegistrySyncError
from registry_sync.operators.task_values import as_option, as_text

if TYPE_CHECKING:
    from registry_sync.sync.open_run import SyncRequest


def check_shapes(values: Mapping[str, Any], title_of: Callable[[str], str]) -> None:
    """Checks each literal value that is given; nothing is looked up. None and empty values are not given.

    Raises as a sync does, with ``title_of`` the parameter before the message.
    """
    from registry_sync.domain.quantities import parse_choice, parse_flag
    from registry_sync.domain.records import SyncMode
    from registry_sync.domain.references import RegistryUrl, RepositoryName
    from registry_sync.domain.remote import SYNC_OPTIONS, read_options
    from registry_sync.domain.serving import base_path_of

    readers: dict[str, Callable[[str], object]] = {
        "url": RegistryUrl.parse,
        "upstream_name": RepositoryName,
        "mode": lambda text: parse_choice(SyncMode, text, "mode"),
        "publish_as": base_path_of,
        "replace_upstream": lambda text: parse_flag(text, "replace_upstream"),
        "preview": lambda text: parse_flag(text, "preview"),
    }
    for name, read in readers.items():
        text = as_text(values.get(name))
        if text is not None:
            _named(title_of(name), partial(read, text))
    for name, option in SYNC_OPTIONS.items():
        parameter = option.parameter or name
        given = values.get(parameter)
        if given is not None:
            _named(title_of(parameter), partial(read_options, {name: as_option(given, option.typed)}))


def sync_request(values: Mapping[str, Any]) -> SyncRequest:
    """The request made from ``values``, by the names of a sync's parameters; missing ones and others are not given."""
    from registry_sync.domain.records import SyncMode
    from registry_sync.domain.remote import SYNC_OPTIONS
    from registry_sync.sync.open_run import SyncRequest

    options = {
        name: as_option(given, option.typed)
        for name, option in SYNC_OPTIONS.items()
        if (given := values.get(option.parameter or name)) is not None
    }
    texts = {
        name: as_text(values.get(name)) for name in ("remote", "url", "upstream_name", "replace_upstream", "publish_as")
    }
    mode = as_text(values.get("mode", SyncMode.MIRROR.value)) or ""
    return SyncRequest(repository=as_text(values.get("repository")) or "", mode=mode, options=options, **texts)


def form_title(context: Mapping[str, Any], name: str) -> str:
    """``Registry (url)``, as in the form of the DAG; the name alone where the DAG has no such parameter."""
    params: Any = getattr(context.get("dag"), "params", None)
    found = params.get_param(name) if params and name in params else None
    title = None if found is None else found.schema.get("title")
    return f"{title} ({name})" if title else name


def _named(title: str, read: Callable[[], object]) -> None:
    try:
        read()
    except RegistrySyncError as refused:
        raise refused.with_message(f"{title}: {refused}") from refused.__cause__
