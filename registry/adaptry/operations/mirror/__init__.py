"""Mirrors versions, with everything that belongs to them, from one registry to another.

`plan` compares two registries, and `sync` carries the plan out once or continuously. `snapshot` holds
everything that is copied with a version, `apply` writes it into a registry, `actions` logs what was done.
`upstream` fetches single versions on demand; `bundles` does the same through a file.
"""
