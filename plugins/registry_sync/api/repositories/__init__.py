"""Repositories over REST."""
