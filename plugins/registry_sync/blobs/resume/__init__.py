"""Blobs during their download: hashed, resumable after a failure, published once they are complete."""
