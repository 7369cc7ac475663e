"""Adapters as OCI artifacts: their contents, their layout on disk, and references to OCI registries.

The media types are ModelPack's (`modelpack/model-spec`); manifest, layout and protocol follow OCI's image and
distribution specifications 1.1. Nothing here depends on our registry.
"""
