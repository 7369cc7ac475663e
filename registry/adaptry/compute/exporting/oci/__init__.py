"""Adapters as OCI artifacts: what is in one, its layout on disk, and how a registry of such artifacts is
given it.

The media types are ModelPack's (`modelpack/model-spec`); manifest, layout and protocol are OCI's image and
distribution specifications 1.1. Nothing here knows our registry.
"""
