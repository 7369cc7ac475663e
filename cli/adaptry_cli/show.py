"""`adaptry show`: everything about a version."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING

import click

from adaptry.core.errors import CorruptData, NotFound, PermissionDenied
from adaptry.core.refs import Latest, Ref
from adaptry.operations.empty_adapter import no_version_message
from adaptry.operations.lineage import labels_of_revision
from adaptry.registry.bases import base_record_or_none
from adaptry.registry.interface import Registry
from adaptry.registry.records import AdapterInfo, VersionDetail
from adaptry_cli.arguments import REF
from adaptry_cli.base_names import with_base_names
from adaptry_cli.command import command
from adaptry_cli.connection import registry_option
from adaptry_cli.output import (
    json_option,
    print_err,
    print_json,
)
from adaptry_cli.tables import print_facts
from adaptry_cli.times import exact_times_option
from adaptry_cli.verdicts import facts_of_verdicts, json_of_verdicts
from adaptry_cli.version_text import facts_of_adapter, facts_of_version
from adaptry_cli.worker_text import served_text

if TYPE_CHECKING:
    from adaptry.checks.runtimes import RuntimeVerdict


@command()
@click.argument("ref", type=REF)
@registry_option
@exact_times_option
@json_option
def show(registry: Registry, ref: Ref, as_json: bool) -> None:
    """Show everything about a version.

    Shows its state and findings first, then metrics, aliases, base, method and modules, files and origin,
    which workers have it loaded, and which engines serve it as trained. Digests are shortened, and a recipe
    is one line; --json has both in full.
    """
    info = registry.adapters.get(ref.name)
    if info.versions == 0 and isinstance(ref.selector, Latest):
        _print_empty(info, as_json)
        return
    detail = registry.versions.detail(ref)
    served = _verdicts(registry, detail)
    residents = registry.workers.residents(ref)
    if as_json:
        answer = {"adapter": info.model_dump(mode="json"), **detail.model_dump(mode="json", by_alias=True)}
        answer["residents"] = [one.model_dump(mode="json") for one in residents]
        print_json({**answer, "runtimes": json_of_verdicts(served)})
        return
    loaded = served_text(residents)
    named = with_base_names(registry.bases, [detail.version])[0]
    shown = detail.model_copy(update={"version": named})
    parents = {each: labels_of_revision(registry.versions, each) for each in detail.manifest.parents}
    facts = [*facts_of_version(shown, info, parents), *([("loaded by", loaded)] if loaded else [])]
    print_facts([*facts, *(facts_of_verdicts(served) if served else ())])


def _verdicts(registry: Registry, detail: VersionDetail) -> Sequence[RuntimeVerdict]:
    """Each engine's verdict; none if the version's files are withheld or damaged."""
    from adaptry.adapters.adapter import open_content
    from adaptry.checks.runtimes import check_all_runtimes
    from adaptry.operations.transfer.revision_content import RevisionContent

    try:
        adapter = open_content(RevisionContent(registry, detail.version, detail.manifest))
    except (CorruptData, PermissionDenied, NotFound):
        return ()
    return check_all_runtimes(adapter, base_record_or_none(registry.bases, detail.version))


def _print_empty(info: AdapterInfo, as_json: bool) -> None:
    if as_json:
        print_json(info)
    else:
        print_facts([("name", str(info.name)), *facts_of_adapter(info)])
    print_err(no_version_message(info.name))
