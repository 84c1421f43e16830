"""``/pages/``: the routes of the pages. Who may list repositories and syncs over REST may look at them.

Errors become pages in :mod:`registry_sync.api.pages.problem_pages`.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from typing import TYPE_CHECKING, Annotated, Any, Literal
from urllib.parse import quote

from fastapi import Query, Request
from fastapi.responses import FileResponse, HTMLResponse, RedirectResponse, Response
from fastapi.routing import APIRoute
from pydantic import AfterValidator, BaseModel, ConfigDict, Field
from starlette.exceptions import HTTPException

from registry_sync.api.access import READ, READ_TASKS, SignedIn
from registry_sync.api.dependencies import Router, UsedDatabase
from registry_sync.api.fields import PathUuid, without_nul
from registry_sync.api.pages.rendering import STATIC, page
from registry_sync.domain.filters import Match
from registry_sync.domain.overviews import Outcome
from registry_sync.domain.records import Page, PageRequest
from registry_sync.hooks.settings import load_settings, serves_pulls_in_api_server
from registry_sync.pulp.hrefs import MAX_NUMBER

if TYPE_CHECKING:
    from airflow.api_fastapi.auth.managers.models.base_user import BaseUser

PER_PAGE = 25
_RECENT = 10
_SHOWN_CHANGES = 500
_SHOWN_DISTRIBUTIONS = 20
_MEDIA_TYPES = {".css": "text/css", ".js": "text/javascript", ".svg": "image/svg+xml"}
#: A repository's name has at most 255 characters; a text longer than that is in none.
_Text = Annotated[str, Field(max_length=255), AfterValidator(without_nul)]
_Number = Annotated[int, Field(ge=1, le=100_000)]


class _Paged(BaseModel):
    model_config = ConfigDict(extra="ignore", hide_input_in_errors=True)

    page: _Number = 1

    def request(self, ordering: str = "") -> PageRequest:
        """The page as a request to a store."""
        return PageRequest((self.page - 1) * PER_PAGE, PER_PAGE, ordering)


class RepositoriesQuery(_Paged):
    """What is shown of the list of repositories; ``state`` is the outcome of the last sync."""

    q: _Text = ""
    state: Outcome | Literal[""] = ""
    ordering: Literal["name", "-name", "synced_at", "-synced_at"] = "name"


class SyncsQuery(_Paged):
    """What is shown of the list of syncs."""

    q: _Text = ""
    state: Outcome | Literal[""] = ""


router = Router(prefix="/pages", include_in_schema=False)
_READ = [*READ, *READ_TASKS]


@router.get("/", dependencies=_READ)
def read_start() -> RedirectResponse:
    """To the repositories, relative to whatever address the API server has."""
    return RedirectResponse("repositories/")


@router.get("/static/{name}")
def read_static(name: str) -> Response:
    """The style, the script and the icon of all pages, for everybody: the page that asks for a login has them, too."""
    known = {path.name: path for path in STATIC.iterdir()}
    if name not in known:
        raise HTTPException(404, "There is no such file.")
    return FileResponse(known[name], media_type=_MEDIA_TYPES[known[name].suffix])


@router.get("/repositories/", dependencies=_READ)
def show_repositories(
    database: UsedDatabase, user: SignedIn, query: Annotated[RepositoriesQuery, Query()]
) -> HTMLResponse:
    """Repositories, each with its latest version and what became of it last."""
    outcomes = _outcomes(query.state)
    found = database.overviews.repositories(query.request(query.ordering), name_contains=query.q, outcomes=outcomes)
    dag_ids = {one.last_run.key.dag_id for one in found.items if one.last_run is not None}
    dag_ids |= {one.mirror.dag_id for one in found.items if one.mirror is not None}
    return _listed("repositories.html", found, query, dags=_visible_dags(user, dag_ids), form=_form_path())


@router.get("/syncs/", dependencies=_READ)
def show_syncs(database: UsedDatabase, user: SignedIn, query: Annotated[SyncsQuery, Query()]) -> HTMLResponse:
    """Syncs, the newest first."""
    found = database.overviews.syncs(
        query.request("-started_at"), name_contains=query.q, outcomes=_outcomes(query.state)
    )
    dags = _visible_dags(user, {one.run.key.dag_id for one in found.items})
    return _listed("syncs.html", found, query, dags=dags)


@router.get("/repositories/{repository_id}/", dependencies=_READ)
def show_repository(
    request: Request, database: UsedDatabase, user: SignedIn, repository_id: PathUuid, query: Annotated[_Paged, Query()]
) -> HTMLResponse:
    """A repository: where to pull it from, its versions, and its recent syncs."""
    overview = database.overviews.repository(repository_id)
    versions = database.versions.page(repository_id, query.request("-number"))
    syncs = database.overviews.syncs(PageRequest(0, _RECENT, "-started_at"), repository_id=repository_id)
    distributions = database.distributions.page(
        PageRequest(0, _SHOWN_DISTRIBUTIONS), where=Match("repository", (repository_id,))
    )
    dag_ids = {one.run.key.dag_id for one in syncs.items}
    if overview.mirror is not None:
        dag_ids.add(overview.mirror.dag_id)
    return page(
        "repository.html",
        depth=2,
        title=overview.repository.name,
        one=overview,
        versions=versions,
        syncs=syncs,
        distributions=distributions,
        dags=_visible_dags(user, dag_ids),
        # Where another server is pulled from is not known here.
        pull_host=request.url.netloc if serves_pulls_in_api_server() else "PULL_SERVER",
        tag=database.overviews.a_tag(repository_id),
        **_paging(versions, query),
    )


@router.get("/repositories/{repository_id}/versions/{number}/", dependencies=_READ)
def show_version(
    database: UsedDatabase,
    repository_id: PathUuid,
    number: Annotated[int, Field(ge=1, le=MAX_NUMBER)],
) -> HTMLResponse:
    """A version: what it changed by tag, and which tags it holds."""
    repository = database.repositories.get(repository_id)
    version = database.versions.get(repository_id, number)
    difference = database.versions.tag_difference(version, limit=_SHOWN_CHANGES)
    return page(
        "version.html",
        depth=4,
        title=f"{repository.name}, version {number}",
        repository=repository,
        version=version,
        difference=difference,
    )


def _add_slash(request: Request) -> RedirectResponse:
    """To the page whose address lacks its last slash, which links relative to it need."""
    name, query = quote(request.url.path.rpartition("/")[2]), request.url.query
    return RedirectResponse(f"./{name}/{'?' if query else ''}{query}")


for _route in [each for each in router.routes if isinstance(each, APIRoute) and each.path.endswith("/")]:
    _path = _route.path.removeprefix(router.prefix).removesuffix("/")
    router.add_api_route(_path, _add_slash, methods=["GET"], dependencies=_READ)


def _outcomes(state: Outcome | Literal[""]) -> list[Outcome] | None:
    return [state] if isinstance(state, Outcome) else None


def _listed(template: str, found: Page[Any], query: BaseModel, **values: Any) -> HTMLResponse:
    title = template.removesuffix(".html").capitalize()
    return page(template, depth=1, title=title, found=found, outcomes=list(Outcome), **_paging(found, query), **values)


def _paging(found: Page[Any], query: BaseModel) -> dict[str, Any]:
    """The query as it was given, and the number of pages."""
    count = max(1, -(-found.total_count // PER_PAGE))
    return {"given": query.model_dump(mode="json", exclude_defaults=True), "query": query, "page_count": count}


@dataclass(frozen=True)
class SyncingDag:
    """What Airflow knows of a DAG that syncs.

    ``schedule`` is in Airflow's words, None without one; ``owners`` are separated by commas, empty for none.
    """

    dag_id: str
    schedule: str | None
    owners: str
    is_paused: bool


def _visible_dags(user: BaseUser, dag_ids: Iterable[str]) -> Mapping[str, SyncingDag]:
    """Those of these DAGs that Airflow still has and that the user may see, by id; one statement."""
    from airflow.api_fastapi.app import get_auth_manager
    from airflow.models import DagModel
    from airflow.utils.session import create_session

    wanted = get_auth_manager().filter_authorized_dag_ids(dag_ids=set(dag_ids), user=user, method="GET")
    if not wanted:
        return {}
    columns = (DagModel.dag_id, DagModel.timetable_summary, DagModel.owners, DagModel.is_paused)
    with create_session() as session:
        rows = session.query(*columns).filter(DagModel.dag_id.in_(sorted(wanted)), ~DagModel.is_stale).all()
    return {row[0]: SyncingDag(row[0], row[1] if row[1] != "None" else None, row[2] or "", row[3]) for row in rows}


def _form_path() -> str:
    """The page of the DAG whose form syncs, below Airflow's own address."""
    return f"dags/{load_settings().sync_dag_id}"
