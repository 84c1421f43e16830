"""Syncs begun over REST."""
