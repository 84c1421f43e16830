"""Garbage collection and integrity: what is unreachable, what was removed, what is stored, and what it takes."""
