"""On whose word an operator acts: its DAG's author, a user who asked over REST, or whoever triggered the run.

Airflow lets people trigger DAGs who may change neither connections nor remotes, and a task cannot ask the auth manager
what they may. What a task can tell is where its parameters come from. Those that stand in the code of the DAG are its
author's. A template may bring in what a trigger said: the run's ``conf``, or its id, which a trigger may choose.
"""

from __future__ import annotations

import re
from collections.abc import Iterable, Mapping
from difflib import get_close_matches
from typing import TYPE_CHECKING, Any

from airflow.sdk import BaseOperator

from registry_sync.errors import ConfigurationError, TriggerRefused

if TYPE_CHECKING:
    from registry_sync.domain.runs import Authority
    from registry_sync.hooks.settings import Settings

_TEMPLATE_MARKS = ("{{", "{%")
#: What a trigger chooses besides ``conf``, as templates name it.
_CHOSEN = re.compile(r"\b(run_id|dag_run|partition_key|triggering_asset_events|inlet_events|task_instance_key_str)\b")
#: What a trigger chooses with the date of a run; of other runs the scheduler does.
_DATES = re.compile(
    r"\b(ds|ts|ds_nodash|ts_nodash|ts_nodash_with_tz|logical_date|data_interval_(start|end)|prev_\w+)\b"
)


class TriggeredTask(BaseOperator):
    """An operator that knows which of its template fields its DAG's author wrote.

    :param trust_triggers: whether whoever may trigger the DAG may have this task do all that its parameters can say
    """

    def __init__(self, *, trust_triggers: bool = False, **kwargs: Any) -> None:
        super().__init__(**kwargs)
        if not isinstance(trust_triggers, bool):
            raise TypeError("trust_triggers is True or False, written in the DAG's code")
        self.trust_triggers = trust_triggers
        self._written: dict[str, Any] | None = None

    def _do_render_template_fields(
        self, parent: Any, template_fields: Iterable[str], context: Any, *more: Any, **named: Any
    ) -> None:
        """As Airflow's, which calls it before ``execute``, for mapped tasks too; what was written is remembered."""
        if parent is self:
            self._written = {name: getattr(self, name, None) for name in self.template_fields}
        super()._do_render_template_fields(parent, template_fields, context, *more, **named)

    def literal_fields(self, context: Mapping[str, Any]) -> frozenset[str]:
        """The template fields whose values stand in the DAG's code; none of a mapped task, which gets them later."""
        if self._written is None or context["ti"].map_index >= 0 or self._has_other_marks():
            return frozenset()
        return frozenset(name for name, value in self._written.items() if _is_literal(value))

    def authority(self, context: Mapping[str, Any], settings: Settings) -> Authority:
        """On whose word the parameters of this task are: the author's or the trigger's."""
        from registry_sync.domain.runs import Authority

        if self.trust_triggers or settings.trust_triggers:
            return Authority.AUTHOR
        if self.literal_fields(context) == frozenset(self.template_fields):
            return Authority.AUTHOR
        dag_run, written = context["dag_run"], repr(self._written)
        is_dated = getattr(dag_run, "run_type", "manual") not in ("scheduled", "backfill") and _DATES.search(written)
        is_silent = not dag_run.conf and not _CHOSEN.search(written) and not is_dated
        return Authority.AUTHOR if is_silent else Authority.TRIGGER

    def require_author(self, context: Mapping[str, Any], settings: Settings, what: str) -> None:
        """Raises :class:`TriggerRefused` when the parameters are the trigger's; ``what`` is what they would do."""
        from registry_sync.domain.runs import Authority

        if self.authority(context, settings) is Authority.TRIGGER:
            raise TriggerRefused(
                f"{what} is not for whoever triggers a run to say. Nothing was changed. Whoever may do it uses REST or "
                "the command line; the author of the DAG, or the settings of this installation, may trust triggers "
                "(trust_triggers)"
            )

    def _has_other_marks(self) -> bool:
        """Whether the DAG changes how templates are written."""
        return bool(getattr(self.get_dag(), "jinja_environment_kwargs", None))


def refuse_unknown_parameters(context: Mapping[str, Any]) -> None:
    """Raises :class:`ConfigurationError` for a parameter of the run that its DAG does not have.

    Airflow takes any. A DAG that declares none may read what it likes from ``conf``.
    """
    dag, dag_run = context.get("dag"), context.get("dag_run")
    conf = getattr(dag_run, "conf", None)
    if dag is None or not conf or not dag.params:
        return
    task = getattr(context.get("ti"), "task", None)
    known = {*dag.params, *(getattr(task, "params", None) or {})}
    unknown = sorted(name for name in conf if name not in known)
    if unknown:
        raise ConfigurationError(
            f"the DAG {dag.dag_id!r} has no parameter {_with_near_names(unknown, known)}; "
            f"it has {', '.join(sorted(known))}"
        )


def _with_near_names(unknown: Iterable[str], known: Iterable[str]) -> str:
    """``'repositry' (did you mean 'repository'?)``, for each."""
    told = []
    for name in unknown:
        near = get_close_matches(name, known, n=1)
        told.append(f"{name[:80]!r}" + (f" (did you mean {near[0]!r}?)" if near else ""))
    return " and ".join(told)


def _is_literal(value: object) -> bool:
    """Whether a value is as its author wrote it: no template, and nothing that is resolved when the task runs."""
    if isinstance(value, str):
        return not any(mark in value for mark in _TEMPLATE_MARKS)
    if isinstance(value, list | tuple | set | frozenset):
        return all(map(_is_literal, value))
    if isinstance(value, dict):
        return all(_is_literal(part) for pair in value.items() for part in pair)
    return value is None or isinstance(value, bool | int | float)
