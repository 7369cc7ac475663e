"""The serving side: code that runs next to or inside an inference engine, with the registry over HTTP only.

`cache` stores adapters in folders named by digest, `engines` controls engines over HTTP, `follow` is the
controller behind `adaptry follow`, and `vllm` is the resolver plugin for vLLM. Nothing here loads torch, SQL
or a bucket's client, so that it installs and imports in an engine's own environment.
"""

from adaptry.integrations.serving.cache.cache import Cache, CachedAdapter

__all__ = ["Cache", "CachedAdapter"]
