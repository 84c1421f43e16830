"""Remotes over REST, and where their credentials are kept."""
