"""Who a client is to its registry: credentials, challenges, tokens, and where they may be sent."""
