"""``/distributions/docker/docker/``: list, make, read, change and remove distributions."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import replace
from functools import partial
from typing import Annotated, Any, ClassVar

from fastapi import Response
from pydantic import Field

from registry_sync.api.access import CHANGE, CREATE, DELETE
from registry_sync.api.dependencies import Router, UsedDatabase
from registry_sync.api.fields import Flag, GivenDocument, GivenHref, Labels, Name, PathUuid, parsed
from registry_sync.api.list_filters import OF_TEXT, FilterField, filtered, named_fields
from registry_sync.api.preconditions import IfMatch
from registry_sync.api.problems import NOT_FOUND, PRECONDITION, InvalidField
from registry_sync.api.resources import NamedQuery, Resource
from registry_sync.domain.filters import Operator
from registry_sync.domain.serving import DistributionSpec, base_path_of
from registry_sync.errors import InvalidReference, RecordNotFound
from registry_sync.hooks.asset_events import announce_publication
from registry_sync.pulp.container_documents import shown
from registry_sync.pulp.hrefs import (
    distribution_href,
    distributions_href,
    read_distribution_href,
    read_repository_href,
    read_version_href,
)
from registry_sync.pulp.repository_documents import DistributionDocument
from registry_sync.pulp.resource_names import DISTRIBUTION, read_prn
from registry_sync.pulp.version_events import publication_event

BasePath = Annotated[Name, parsed(base_path_of), Field(description="What clients pull, such as team/alpine")]
RepositoryHref = Annotated[GivenHref, parsed(read_repository_href), Field(description="Serve its latest version")]
VersionHref = Annotated[GivenHref, parsed(read_version_href), Field(description="Always serve this version")]
_NAMES = {"name": "name", "base_path": "base_path", "private": "is_private", "pulp_labels": "labels"}


class GivenDistribution(GivenDocument):
    """The fields of new and changed distributions."""

    repository: RepositoryHref | None = None
    repository_version: VersionHref | None = None

    only_in_responses: ClassVar[frozenset[str]] = frozenset(
        {"pulp_created", "pulp_href", "pulp_last_updated", "registry_path"}
    )

    def spec_values(self, *, only_given: bool) -> dict[str, Any]:
        """The fields of a :class:`DistributionSpec`, all of them or those that were sent.

        Raises :class:`InvalidField` when both a repository and a version are given.
        """
        sent = self.model_dump(exclude_unset=only_given)
        values = {_NAMES[name]: value for name, value in sent.items() if name in _NAMES}
        repository, version = sent.get("repository"), sent.get("repository_version")
        if repository is not None and version is not None:
            raise InvalidField("repository_version", "Give either a repository or a version of it.")
        if version is not None:
            values["repository_id"], values["version_number"] = read_version_href(version)
        elif repository is not None:
            values |= {"repository_id": read_repository_href(repository), "version_number": None}
        return values

    def without_content(self, present: DistributionSpec) -> dict[str, Any]:
        """What is to change where null was sent in place of what is served: nothing is served then."""
        served = "repository" if present.version_number is None else "repository_version"
        is_taken = served in self.model_fields_set and not (self.repository or self.repository_version)
        return {"repository_id": None, "version_number": None} if is_taken else {}


class NewDistribution(GivenDistribution):
    """A distribution to be made, or put in place of another one."""

    name: Name
    base_path: BasePath
    private: Annotated[Flag, Field(description="Whether only robots may pull it")] = True
    pulp_labels: Labels

    def spec(self) -> DistributionSpec:
        """As a store takes it."""
        return DistributionSpec(**self.spec_values(only_given=False))


class ChangedDistribution(GivenDistribution):
    """What to change of a distribution; what is left out stays."""

    name: Annotated[Name, Field(default_factory=str)]
    base_path: Annotated[BasePath, Field(default_factory=str)]
    private: Flag = True
    pulp_labels: Labels


DistributionQuery = filtered(
    NamedQuery,
    "DistributionQuery",
    "The filters and order of distributions.",
    *named_fields(read_distribution_href, partial(read_prn, model=DISTRIBUTION)),
    FilterField("base_path", how=OF_TEXT),
    FilterField("repository", how=(Operator.EQUAL, Operator.IN), read=read_repository_href),
)
router = Router(prefix="/distributions/docker/docker", tags=["distributions"])
Resource(
    one="distribution",
    many="distributions",
    listed="Distributions, by name unless ordered otherwise.",
    read="A distribution.",
    href=distributions_href,
    query=DistributionQuery,
    document=DistributionDocument,
    page=lambda database, query: database.distributions.page(query.page_request(), where=query.wanted()),
    get=lambda database, distribution_id: database.distributions.get(distribution_id),
).add_routes(router)


@router.post("/", status_code=201, dependencies=CREATE)
def create_distribution(database: UsedDatabase, given: NewDistribution, response: Response) -> DistributionDocument:
    """A new distribution: from now on clients pull what it serves under its base path."""
    spec = given.spec()
    with _fields_named(spec):
        made = database.distributions.create(spec)
    announce_publication(database, None, made, publication_event)
    response.headers["Location"] = distribution_href(made.id)
    return shown(DistributionDocument, made)


@router.put("/{distribution_id}/", dependencies=CHANGE, responses={**NOT_FOUND, **PRECONDITION})
def replace_distribution(
    database: UsedDatabase, distribution_id: PathUuid, given: NewDistribution, if_match: IfMatch
) -> DistributionDocument:
    """The distribution with everything that is said of it replaced."""
    spec, only_if = given.spec(), if_match.of(DistributionDocument)
    before = database.distributions.get(distribution_id)
    with _fields_named(spec):
        changed = database.distributions.change(distribution_id, lambda _: spec, only_if)
    announce_publication(database, before, changed, publication_event)
    return shown(DistributionDocument, changed)


@router.patch("/{distribution_id}/", dependencies=CHANGE, responses={**NOT_FOUND, **PRECONDITION})
def change_distribution(
    database: UsedDatabase, distribution_id: PathUuid, given: ChangedDistribution, if_match: IfMatch
) -> DistributionDocument:
    """The distribution with what was sent changed: another version is a promotion, the one before a rollback."""
    values = given.spec_values(only_given=True)

    def change(spec: DistributionSpec) -> DistributionSpec:
        return replace(spec, **given.without_content(spec), **values)

    before = database.distributions.get(distribution_id)
    with _fields_named(change(before.spec)):
        changed = database.distributions.change(distribution_id, change, if_match.of(DistributionDocument))
    announce_publication(database, before, changed, publication_event)
    return shown(DistributionDocument, changed)


@router.delete("/{distribution_id}/", status_code=204, dependencies=DELETE, responses={**NOT_FOUND, **PRECONDITION})
def delete_distribution(database: UsedDatabase, distribution_id: PathUuid, if_match: IfMatch) -> None:
    """Removes the distribution; what it served stays."""
    database.distributions.delete(distribution_id, if_match.of(DistributionDocument))


@contextmanager
def _fields_named(spec: DistributionSpec) -> Iterator[None]:
    """Says which field is wrong, where only the store can find out."""
    try:
        yield
    except RecordNotFound as problem:
        field = "repository" if spec.version_number is None else "repository_version"
        raise InvalidField(field, f"{problem}.") from None
    except InvalidReference as problem:
        raise InvalidField("base_path", f"{problem}.") from None
