"""The catalog: versions, aliases, metrics, bases and events. Only this package uses database sessions.

`Catalog` opens a database and gives transactions; each module beside it reads and writes one kind of thing in
a transaction, and returns values from `records`. Rows never leave this package, and it contains no access
rules.
"""
