"""Repository versions over REST."""
