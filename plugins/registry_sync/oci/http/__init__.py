"""Requests and responses below the registry API: connections, redirects, limits, retries, error mapping."""
