"""Content units: manifests and blobs stored once, what lies below them, and which of them lack bytes."""
