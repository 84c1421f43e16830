"""Of which states of mirrors people were notified, once each and not at every run.

A state is claimed before its message is sent: of two tasks that find it at once, one sends it. What could not be sent
is given back, and is tried by the next run. A process that dies between the two loses the message; none is sent twice.
"""

from __future__ import annotations

from collections.abc import Collection, Iterable, Mapping, Sequence

from sqlalchemy import Connection, delete, select

from registry_sync.db.engine import Transactions
from registry_sync.db.fleet_tables import notified_states
from registry_sync.db.queries import in_batches, insert_or_keep, storable
from registry_sync.domain.mirror_states import UNTIL_SUCCESS, MirrorState, NotifiedOf
from registry_sync.domain.quantities import utc_now

_row = notified_states.c
_FINGERPRINT_LENGTH = 250


class NotifiedStateStore:
    """Each method is a short transaction of its own and may be repeated."""

    def __init__(self, transactions: Transactions) -> None:
        self._transactions = transactions

    def known(self, repositories: Iterable[str], recipients: Collection[str]) -> Mapping[str, dict[str, str]]:
        """The kinds that any of ``recipients`` was notified of, with fingerprints, by repository; none for no state."""
        found: dict[str, dict[str, str]] = {}
        with self._transactions.reading() as connection:
            for batch in in_batches(sorted(repositories)):
                wanted = _row.repository.in_(batch) & _row.recipient.in_(sorted(recipients))
                for row in connection.execute(select(notified_states).where(wanted)):
                    found.setdefault(row.repository, {})[row.kind] = row.fingerprint
        return found

    def claim(
        self,
        repository: str,
        recipient: str,
        states: Sequence[MirrorState],
        *,
        kinds: Collection[NotifiedOf],
        has_failed: bool,
    ) -> list[MirrorState]:
        """Those of ``states`` that ``recipient`` is to be notified of now; from now on they count as sent.

        ``kinds`` are those that the recipient asked for. States of these that have ended are forgotten, so that they
        are news when they come back: those of failures with a success alone, so that a mirror that fails in two ways
        in turn is no news at every run.
        """
        present = {state.kind: state for state in states if state.kind in kinds}
        of_recipient = (_row.repository == repository, _row.recipient == recipient)
        with self._transactions.writing() as connection:
            rows = connection.execute(select(notified_states).where(*of_recipient).with_for_update()).all()
            known = {NotifiedOf(row.kind): row.fingerprint for row in rows}
            kept = UNTIL_SUCCESS if has_failed else frozenset()
            ended = {kind for kind in known.keys() & set(kinds) if kind not in present and kind not in kept}
            other = [state for state in present.values() if known.get(state.kind) != _fingerprint(state)]
            gone = sorted(kind.value for kind in {*ended, *(state.kind for state in other)} & known.keys())
            if gone:
                connection.execute(delete(notified_states).where(*of_recipient, _row.kind.in_(gone)))
            claimed = [state for state in other if _is_claimed(connection, recipient, state)]
        return [state for state in claimed if state.is_news or state.kind in known]

    def release(self, recipient: str, states: Iterable[MirrorState]) -> None:
        """Gives back states whose message could not be sent."""
        with self._transactions.writing() as connection:
            for state in states:
                same = (_row.repository == state.repository, _row.recipient == recipient, _row.kind == state.kind.value)
                connection.execute(delete(notified_states).where(*same))


def _is_claimed(connection: Connection, recipient: str, state: MirrorState) -> bool:
    """Whether this transaction recorded the state; False where another one has since."""
    same = {"repository": state.repository, "recipient": recipient, "kind": state.kind.value}
    values = {**same, "fingerprint": _fingerprint(state), "notified_at": utc_now()}
    kept = {"preserve_rowcount": True}
    return connection.execute(insert_or_keep(connection, notified_states), values, execution_options=kept).rowcount == 1


def _fingerprint(state: MirrorState) -> str:
    return storable(state.fingerprint, _FINGERPRINT_LENGTH)
