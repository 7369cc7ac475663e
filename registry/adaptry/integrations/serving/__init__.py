"""The serving side: what runs beside an engine, or in it. It reaches a registry over HTTP and nothing behind it.

`cache` keeps adapters in folders named by digest. Nothing here loads torch, SQL or a bucket's client, so that it
installs and imports in an engine's own environment.
"""

from adaptry.integrations.serving.cache.cache import Cache, CachedAdapter

__all__ = ["Cache", "CachedAdapter"]
