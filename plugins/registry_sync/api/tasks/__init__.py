"""Tasks over REST: what became of a sync."""
