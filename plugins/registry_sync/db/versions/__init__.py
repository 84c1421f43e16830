"""Repository versions: how they are made, compared, copied, rolled back and removed."""
