"""Triggers: what starts DAGs when something changed upstream."""
