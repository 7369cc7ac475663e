"""A registry on a server, over HTTP: the same interface as a local one, errors included."""

from adaptry.registry.http.registry import HttpRegistry

__all__ = ["HttpRegistry"]
