"""A database as the code left it before its modules were put together anew, and what that code said of it over REST."""
