"""HTTP below the registry API: connections, redirects, rate limits, retries, error mapping."""
