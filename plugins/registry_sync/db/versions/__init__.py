"""Repository versions: created, compared, copied, rolled back and removed."""
