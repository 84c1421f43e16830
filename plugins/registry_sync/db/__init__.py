"""The metadata database: tables, migrations, and stores that return domain values.

Nothing outside this package sees a table, a session or an error of the database's driver.
"""
