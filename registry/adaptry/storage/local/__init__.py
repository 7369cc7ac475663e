"""`LocalRegistry`: the registry over a catalog and a blob store, on this machine."""

from adaptry.storage.local.context import RegistryContext
from adaptry.storage.local.registry import LocalRegistry

__all__ = ["LocalRegistry", "RegistryContext"]
