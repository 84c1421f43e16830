"""A filled database and what the REST API says of it, kept as data: ``database.sql`` and ``responses.json``."""
