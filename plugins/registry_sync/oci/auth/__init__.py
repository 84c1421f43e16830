"""Authentication to a registry: credentials, challenges, tokens, and the hosts that they may be sent to."""
