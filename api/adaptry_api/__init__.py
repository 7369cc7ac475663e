"""Adaptry over HTTP: the registry's REST interface as a FastAPI application.

`create_app(settings)` makes the application, `serve(...)` runs it. Each request gets a registry that acts
for its caller; routes translate between HTTP and that registry and decide nothing themselves.
"""

from adaptry_api.settings import ServerSettings

__all__ = ["ServerSettings"]
