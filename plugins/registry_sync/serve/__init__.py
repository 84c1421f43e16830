"""What was synced, pulled by container clients: the registry API, read only (OCI distribution specification 1.1)."""
