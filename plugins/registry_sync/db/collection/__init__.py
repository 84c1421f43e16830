"""Garbage collection, removal and verification of stored content, and its disk usage."""
