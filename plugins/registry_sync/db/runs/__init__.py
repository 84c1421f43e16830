"""Sync runs: their parameters, listings, selections, plans and ends."""
