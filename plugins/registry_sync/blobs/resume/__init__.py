"""Blobs while they are written: verified, resumable after a break, published as a whole."""
