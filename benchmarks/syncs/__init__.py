"""Syncs of one repository by all that can: DAG runs, our stages alone, other programs, and a bare loop, in turn."""
