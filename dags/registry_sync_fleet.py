"""A DAG for each mirror, or for each group of mirrors, that the files of the setting ``fleet_path`` declare.

Without that setting it makes none. What the files say is compiled once for each content, so that this costs no more
than reading one file.
"""

from __future__ import annotations

from registry_sync.operators.mirror_dags import mirror_dags

# Airflow looks for the words DAG and airflow in a file before it parses it.
globals().update(mirror_dags())
