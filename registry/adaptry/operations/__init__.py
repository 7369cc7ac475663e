"""Functions over the registry's interface: push, pull, derive, export, mirror, import, repair."""
