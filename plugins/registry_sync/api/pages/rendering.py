"""HTML of templates: every value is escaped, as names, tags and errors come from strangers.

A page has no script of its own text; the one script that it loads has it look like Airflow around it, and opens
Airflow's own pages there, which a frame may not. Links are relative, so that they hold behind any address.
"""

from __future__ import annotations

from collections.abc import Mapping
from datetime import datetime
from functools import cache
from pathlib import Path
from typing import TYPE_CHECKING, Any
from urllib.parse import quote, urlencode

from fastapi.responses import HTMLResponse

from registry_sync.domain.overviews import Outcome
from registry_sync.domain.quantities import format_bytes, format_count, format_duration, utc_now
from registry_sync.domain.runs import LOCAL_DAG_ID

if TYPE_CHECKING:
    from jinja2 import Environment

_HERE = Path(__file__).parent
_TEMPLATES, STATIC = _HERE / "templates", _HERE / "static"
HEADERS = {
    "Content-Security-Policy": "default-src 'none'; script-src 'self'; style-src 'self'; img-src 'self'; "
    "form-action 'self'; base-uri 'none'",
    # Another site may link here: the window that it opens is then none of its own.
    "Cross-Origin-Opener-Policy": "same-origin",
}


def page(template: str, *, depth: int, **values: Any) -> HTMLResponse:
    """The page of a template. ``depth`` is how many folders its own address is below that of all pages."""
    return HTMLResponse(rendered(template, up="../" * depth, **values), headers=HEADERS)


def rendered(template: str, *, up: str, **values: Any) -> str:
    """The text of a template; ``up`` leads to the folder of all pages."""
    # Airflow's own pages are two folders further up: those are below ``/pulp/pages/``.
    return _environment().get_template(template).render(up=up, airflow=f"{up}../../", now=utc_now(), **values)


def run_path(dag_id: str, run_id: str) -> str | None:
    """The page of a DAG run below Airflow's own address; None for a sync that a command ran by itself."""
    return None if dag_id == LOCAL_DAG_ID else f"dags/{quote(dag_id, safe='')}/runs/{quote(run_id, safe='')}"


def _query(given: Mapping[str, Any], **changed: Any) -> str:
    """The query of a link to the same list, with what is changed; what is empty is left out."""
    return "?" + urlencode({name: value for name, value in {**given, **changed}.items() if value not in (None, "", [])})


def _age(at: datetime, now: datetime) -> str:
    seconds = (now - at).total_seconds()
    return f"{format_duration(seconds)} ago" if seconds >= 60 else "just now"


def _first_line(text: str | None, length: int = 160) -> str:
    line = (text or "").strip().partition("\n")[0]
    return line if len(line) <= length else f"{line[:length]}\N{HORIZONTAL ELLIPSIS}"


@cache
def _environment() -> Environment:
    from jinja2 import Environment, FileSystemLoader, StrictUndefined

    environment = Environment(
        loader=FileSystemLoader(_TEMPLATES),
        autoescape=True,
        undefined=StrictUndefined,
        trim_blocks=True,
        lstrip_blocks=True,
    )
    environment.filters.update(
        bytes=format_bytes,
        number=lambda count: f"{count:,}",
        counted=format_count,
        seconds=format_duration,
        age=_age,
        first_line=_first_line,
        query=_query,
    )
    environment.globals.update(run_path=run_path, outcome_of=Outcome.of)
    return environment
