"""The catalog: who has which versions, aliases, metrics, bases and events. Only here are database sessions.

`Catalog` opens a database and gives transactions; each module beside it reads and writes one kind of thing in
one, and answers with values from `records`. Rows never leave this package, and no rule about who may do what
enters it.
"""
