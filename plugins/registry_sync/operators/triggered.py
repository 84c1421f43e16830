"""The authority of an operator's parameters: the DAG's author, a user who requested it over REST, or the run's trigger.

Airflow lets users trigger DAGs who may change neither connections nor remotes, and a task cannot query the auth manager
for their rights. A task can only determine where its parameters come from. Those in the code of the DAG are the
author's. A template may include values of the trigger: the run's ``conf``, or its id or date, which the trigger may
set. So a template counts as the author's if it names only trusted values: parameters, the DAG's id, XComs of the same
run, and dates that the scheduler set. A backfill's dates are set by whoever starts it.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from difflib import get_close_matches
from typing import TYPE_CHECKING, Any

from airflow.sdk import BaseOperator, XComArg
from airflow.sdk.definitions._internal.expandinput import MappedArgument
from airflow.sdk.definitions.mappedoperator import MappedOperator
from jinja2 import TemplateError, meta, nodes

from registry_sync.errors import ConfigurationError, TriggerRefused

if TYPE_CHECKING:
    from registry_sync.domain.runs import Authority
    from registry_sync.hooks.settings import Settings

_TEMPLATE_MARKS = ("{{", "{%")
#: Names that an author's template may use; the parameters are the DAG's defaults as long as ``conf`` is empty.
_ALLOWED = frozenset({"params"})
#: Further names in a run that the scheduler started, whose date follows from the DAG's schedule.
_DATES = frozenset({"logical_date", "data_interval_start", "data_interval_end", "ds", "ds_nodash", "ts", "ts_nodash"})
#: Of these a template may use only ``dag.dag_id``, and ``ti.xcom_pull`` of this run. ``self`` gives access to all.
_RESTRICTED = frozenset({"dag", "ti", "task_instance", "self"})
#: Arguments of ``ti.xcom_pull`` that stay within this run.
_OWN_RUN = frozenset({"task_ids", "key", "map_indexes"})


class TriggeredTask(BaseOperator):
    """An operator that knows which of its template fields the DAG's author wrote.

    :param trust_triggers: whether a user who may trigger the DAG may set all parameters of this task; for a mapped task
        it counts in ``partial`` and in ``default_args``, not in expanded arguments
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
        """As Airflow's, which calls it before ``execute``, for mapped tasks too; remembers the unrendered values.

        From then on the task's own ``template_fields`` are those that are set: Airflow sends and shows each of them,
        and takes half a millisecond for one.
        """
        if parent is not self:
            super()._do_render_template_fields(parent, template_fields, context, *more, **named)
            return
        self._written = {name: getattr(self, name, None) for name in type(self).template_fields}
        super()._do_render_template_fields(parent, template_fields, context, *more, **named)
        self.template_fields = tuple(name for name in self._written if getattr(self, name, None) not in (None, ""))

    def literal_fields(self, context: Mapping[str, Any]) -> frozenset[str]:
        """The template fields with literal values in the DAG's code; none for a mapped task, which gets them later."""
        if self._written is None or context["ti"].map_index >= 0 or self._has_other_marks():
            return frozenset()
        return frozenset(name for name, value in self._written.items() if is_literal(value))

    def authority(self, context: Mapping[str, Any], settings: Settings) -> Authority:
        """The authority of this task's parameters: the author or the trigger."""
        from registry_sync.domain.runs import Authority

        if settings.trust_triggers or self._is_trusting():
            return Authority.AUTHOR
        if self.literal_fields(context) == frozenset(type(self).template_fields):
            return Authority.AUTHOR
        dag_run = context["dag_run"]
        allowed = _ALLOWED | _DATES if getattr(dag_run, "run_type", None) == "scheduled" else _ALLOWED
        is_silent = not dag_run.conf and self._is_authors(self._written or {}, allowed)
        return Authority.AUTHOR if is_silent else Authority.TRIGGER

    def require_author(self, context: Mapping[str, Any], settings: Settings, what: str) -> None:
        """Raises :class:`TriggerRefused` when the parameters are the trigger's; ``what`` is what they would change."""
        from registry_sync.domain.runs import Authority

        if self.authority(context, settings) is Authority.TRIGGER:
            raise TriggerRefused(
                f"the trigger of a run may not change {what}. Nothing was changed. A user with the right to do it can "
                "use REST or the command line; the author of the DAG, or the settings of this installation, may trust "
                "triggers (trust_triggers)"
            )

    def _is_trusting(self) -> bool:
        """Whether the DAG's code trusts triggers. Expanded arguments of a mapped task may be the trigger's."""
        dag = self.get_dag()
        written = self if dag is None else dag.get_task(self.task_id)
        if dag is None or not isinstance(written, MappedOperator):
            return self.trust_triggers
        of_group = getattr(written.task_group, "default_args", None) or {}
        return {**dag.default_args, **of_group, **written.partial_kwargs}.get("trust_triggers") is True

    def _is_authors(self, value: object, allowed: frozenset[str]) -> bool:
        """Whether nothing in an unrendered value can be set by a trigger, other than by ``conf``."""
        if isinstance(value, XComArg | MappedArgument):  # of a run that was started without conf
            return True
        if isinstance(value, str):
            return self._names_only(value, allowed)
        if isinstance(value, list | tuple | set | frozenset):
            return all(self._is_authors(item, allowed) for item in value)
        if isinstance(value, dict):
            return all(self._is_authors(item, allowed) for pair in value.items() for item in pair)
        return is_literal(value)

    def _names_only(self, template: str, allowed: frozenset[str]) -> bool:
        """Whether a template uses only allowed names, and includes no other template or file."""
        if template.endswith(tuple(self.template_ext)):
            return False
        try:
            tree = self.get_template_env().parse(template)
        except TemplateError:
            return False
        if any(tree.find_all((nodes.Include, nodes.Import, nodes.FromImport, nodes.Extends))):
            return False
        whole = sum(node.name in _RESTRICTED for node in tree.find_all(nodes.Name))
        allowed_uses = sum(map(_is_allowed_part, tree.find_all((nodes.Getattr, nodes.Call))))
        return whole == allowed_uses and meta.find_undeclared_variables(tree) <= allowed | _RESTRICTED

    def _has_other_marks(self) -> bool:
        """Whether the DAG changes the template syntax."""
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
            f"the DAG {dag.dag_id!r} has no parameter {with_near_names(unknown, known)}; "
            f"it has {', '.join(sorted(known))}"
        )


def with_near_names(unknown: Iterable[str], known: Iterable[str]) -> str:
    """``'repositry' (did you mean 'repository'?)``, for each."""
    texts = []
    for name in unknown:
        near = get_close_matches(name, known, n=1)
        texts.append(f"{name[:80]!r}" + (f" (did you mean {near[0]!r}?)" if near else ""))
    return " and ".join(texts)


def _is_allowed_part(node: nodes.Node) -> bool:
    """Whether an expression of a template is ``dag.dag_id``, or ``ti.xcom_pull(…)`` with literal arguments."""
    if isinstance(node, nodes.Getattr):
        return isinstance(node.node, nodes.Name) and (node.node.name, node.attr) == ("dag", "dag_id")
    if not isinstance(node, nodes.Call) or not isinstance(node.node, nodes.Getattr):
        return False
    of, pulled_from = node.node.node, [*node.args, *(given.value for given in node.kwargs)]
    return (
        isinstance(of, nodes.Name)
        and of.name in ("ti", "task_instance")
        and node.node.attr == "xcom_pull"
        and len(node.args) < 2  # the second is the id of a DAG
        and {given.key for given in node.kwargs} <= _OWN_RUN
        and node.dyn_args is None
        and node.dyn_kwargs is None
        and all(map(_is_written, pulled_from))
    )


def _is_written(value: nodes.Node) -> bool:
    if isinstance(value, nodes.List | nodes.Tuple):
        return all(map(_is_written, value.items))
    return isinstance(value, nodes.Const)


def is_literal(value: object) -> bool:
    """Whether a value is literal: no template, and nothing that is resolved when the task runs."""
    if isinstance(value, str):
        return not any(mark in value for mark in _TEMPLATE_MARKS)
    if isinstance(value, list | tuple | set | frozenset):
        return all(map(is_literal, value))
    if isinstance(value, dict):
        return all(is_literal(item) for pair in value.items() for item in pair)
    return value is None or isinstance(value, bool | int | float)
