"""What keeps the blob store and the database in order: collect, reclaim, verify, repair."""
