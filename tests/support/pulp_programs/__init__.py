"""Programs that run in the environments of Pulp's clients, and import nothing else than these and the library."""
