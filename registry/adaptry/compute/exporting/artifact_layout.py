"""Writes an adapter as an OCI artifact with ModelPack's types, in an image layout, with the base as
`subject`.
"""

from __future__ import annotations

from pathlib import Path

from adaptry.adapters.output_folder import output_folder
from adaptry.compute.exporting.oci.artifact import Artifact, adapter_artifact, base_artifact
from adaptry.compute.exporting.oci.layout import write_layout
from adaptry.compute.exporting.options import ExportOptions
from adaptry.compute.lazy_adapters.lazy_adapter import ParentAdapter

_TAG = "latest"


def build_artifact(parent: ParentAdapter, options: ExportOptions) -> Artifact:
    """Builds the artifact. It has a subject only if one is given or the base has a fingerprint."""
    is_own = options.record is not None and options.subject is None
    base = base_artifact(options.record, options.base_name) if options.record and is_own else None
    name = parent.label if parent.revision else None  # the path of a folder is private
    return adapter_artifact(
        parent.adapter, name=name, revision=parent.revision, base=base, subject=options.subject
    )


def write(parent: ParentAdapter, target: Path, options: ExportOptions) -> tuple[str, ...]:
    """Writes the layout. Raises the errors of `output_folder`."""
    artifact = build_artifact(parent, options)
    with output_folder(target, replace=options.may_replace, sources=[parent.adapter.content]) as folder:
        write_layout(artifact, folder, _TAG)
    if artifact.subject is None:
        return ("it has no subject, since its base is unknown: pass --base to set it",)
    return ()
