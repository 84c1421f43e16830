"""The metadata database: tables, migrations, and stores that return domain values.

Tables, sessions and the errors of the database's driver stay inside this package.
"""
