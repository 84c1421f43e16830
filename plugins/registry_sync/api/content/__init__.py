"""Content units over REST: blobs, manifests and tags."""
