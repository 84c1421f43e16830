"""Messages to people through Airflow's notifiers: which one a connection is for, and what it is given.

The connection's type says the notifier (SMTP, Slack, Apprise, or a webhook, which gets JSON), or its field Extra does:
``{"notifier": "package.module.AnyNotifier", "notifier_arguments": {"channel": "#mirrors"}}``. A notifier renders what
it is given as a template; a message has parts that registries write, and reaches it as the value of one.
"""

from __future__ import annotations

import html
import importlib
import inspect
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from registry_sync.domain.mirror_states import MirrorState, StateMessage
from registry_sync.errors import ConfigurationError

if TYPE_CHECKING:
    from airflow.sdk.definitions.connection import Connection

_TIMEOUT_SECONDS = 30
#: Types of connections with the notifier that they are for.
NOTIFIERS: Mapping[str, str] = {
    "smtp": "airflow.providers.smtp.notifications.smtp.SmtpNotifier",
    "slack": "airflow.providers.slack.notifications.slack.SlackNotifier",
    "slackwebhook": "airflow.providers.slack.notifications.slack_webhook.SlackWebhookNotifier",
    "apprise": "airflow.providers.apprise.notifications.apprise.AppriseNotifier",
}
#: The type of a connection to a webhook.
WEBHOOK = "http"
#: Parameters of notifiers for the subject and the text, in the order in which the first known one is used.
_SUBJECTS, _TEXTS = ("subject", "title"), ("html_content", "text", "body", "message", "content", "description")
_SUBJECT, _TEXT = "registry_sync_subject", "registry_sync_text"


@dataclass(frozen=True)
class _Recipient:
    """A connection as a notifier needs it."""

    conn_id: str
    conn_type: str
    notifier: str | None
    arguments: Mapping[str, Any]

    @classmethod
    def read(cls, conn_id: str) -> _Recipient:
        from airflow.sdk import BaseHook
        from airflow.sdk.exceptions import AirflowNotFoundException

        try:
            found: Connection = BaseHook.get_connection(conn_id)
        except AirflowNotFoundException:
            raise ConfigurationError(
                f"there is no Airflow connection {conn_id!r}, which notifications are to be sent to; create it under "
                "Admin, Connections, or name another one in notify"
            ) from None
        extra = found.extra_dejson
        arguments = extra.get("notifier_arguments") or {}
        if not isinstance(arguments, Mapping):
            raise ConfigurationError(f"notifier_arguments in Extra of connection {conn_id!r} must be a JSON object")
        conn_type = found.conn_type or ""
        return cls(conn_id, conn_type, extra.get("notifier") or NOTIFIERS.get(conn_type), arguments)


def send_message(conn_id: str, states: Sequence[MirrorState], context: Mapping[str, Any]) -> None:
    """Sends one message about ``states``. Raises :class:`ConfigurationError`, and what the notifier raises."""
    recipient, message = _Recipient.read(conn_id), StateMessage.of(states)
    if recipient.notifier is None and recipient.conn_type == WEBHOOK:
        _post(conn_id, states, message)
        return
    if recipient.notifier is None:
        raise ConfigurationError(
            f"connection {conn_id!r} of type {recipient.conn_type!r} names no notifier: take one of type "
            f"{', '.join([*NOTIFIERS, WEBHOOK])}, or name one in Extra, as notifier"
        )
    notify, is_html = _made(recipient)
    text = f"<pre>{html.escape(message.text)}</pre>" if is_html else message.text
    notify({**context, _SUBJECT: message.subject, _TEXT: text})


def _made(recipient: _Recipient) -> tuple[Any, bool]:
    """The notifier, and whether its text is HTML. Raises :class:`ConfigurationError`."""
    module, _, name = str(recipient.notifier).rpartition(".")
    try:
        notifier = getattr(importlib.import_module(module), name)
        known = inspect.signature(notifier).parameters
    except (AttributeError, ImportError, TypeError, ValueError) as problem:
        raise ConfigurationError(
            f"the notifier {recipient.notifier} of connection {recipient.conn_id!r} cannot be used: {problem}; install "
            "the provider that has it"
        ) from problem
    arguments = dict(recipient.arguments)
    for parameter in known:
        if parameter.endswith("conn_id"):
            arguments.setdefault(parameter, recipient.conn_id)
    subject = next((name for name in _SUBJECTS if name in known), None)
    text = next((name for name in _TEXTS if name in known), None)
    if text is None:
        raise ConfigurationError(
            f"the notifier {recipient.notifier} of connection {recipient.conn_id!r} has none of the parameters "
            f"{', '.join(_TEXTS)}, so that it cannot be given a text"
        )
    arguments[text] = f"{{{{ {_TEXT} }}}}"
    if subject is not None:
        arguments[subject] = f"{{{{ {_SUBJECT} }}}}"
    elif text != "html_content":
        arguments[text] = f"{{{{ {_SUBJECT} }}}}\n{{{{ {_TEXT} }}}}"
    try:
        return notifier(**arguments), text == "html_content"
    except TypeError as problem:
        raise ConfigurationError(
            f"the notifier {recipient.notifier} of connection {recipient.conn_id!r} needs more, as notifier_arguments "
            f'in Extra, such as {{"notifier_arguments": {{"to": "team@example.org"}}}}: {problem}'
        ) from problem


def _post(conn_id: str, states: Sequence[MirrorState], message: StateMessage) -> None:
    """Posts the message and its states as JSON to the URL of the connection."""
    from airflow.providers.http.hooks.http import HttpHook

    document = {
        "subject": message.subject,
        "text": message.text,
        "states": [
            {"repository": state.repository, "state": state.kind.value, "detail": state.detail} for state in states
        ],
    }
    HttpHook(method="POST", http_conn_id=conn_id).run(json=document, extra_options={"timeout": _TIMEOUT_SECONDS})
