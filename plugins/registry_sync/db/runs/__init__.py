"""Sync runs: what each was asked to do, what it listed, selected and planned, and how it ended."""
