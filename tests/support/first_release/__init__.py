"""A database as the first release left it."""
