"""Adapters as OCI artifacts: what is in one, its layout on disk, and pushing it to a registry.

The media types are ModelPack's (`modelpack/model-spec`); manifest, layout and protocol are OCI's image and
distribution specifications 1.1. Nothing here knows our registry.
"""
