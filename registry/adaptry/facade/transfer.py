"""`push` and `pull`: adapters into a registry, and back onto this machine."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING

from adaptry.adapters.adapter import Adapter, open_dir
from adaptry.core.errors import Invalid
from adaptry.core.refs import AdapterName
from adaptry.core.validation import validated
from adaptry.facade.arguments import BaseLike, RefLike, parse_base, parse_name, parse_ref
from adaptry.facade.destination import SENTENCES, push_options
from adaptry.facade.progress_bars import ShowProgress, shown_progress
from adaptry.facade.python_errors import python_errors
from adaptry.facade.registries import RegistryLike, opened
from adaptry.facade.warnings import warn
from adaptry.operations import transfer
from adaptry.operations.base_recognition import BaseRecogniser
from adaptry.operations.empty_adapter import explain_empty_adapter
from adaptry.operations.hf_import.hub_names import HubRef, is_hub_ref
from adaptry.operations.result_files import find_result_files
from adaptry.registry.records import AdapterEdit, PushOptions, PushResult, VersionInfo
from adaptry.registry.state_warnings import state_warning

if TYPE_CHECKING:
    from adaptry.core.progress import Progress
    from adaptry.registry.interface import Registry


@python_errors
def push(
    registry: RegistryLike,
    source: Adapter | Path | str,
    name: AdapterName | str,
    *,
    metrics: Mapping[str, float] | None = None,
    alias: str | None = None,
    description: str | None = None,
    tags: Sequence[str] | None = None,
    base: BaseLike | None = None,
    parents: Sequence[RefLike] = (),
    provenance: Mapping[str, str] | None = None,
    force_reason: str | None = None,
    progress: ShowProgress = True,
) -> PushResult:
    """Pushes an adapter as the next version of `name`.

    Pushing identical files returns the existing version (`is_new` is False). Results files in the folder
    (`trainer_state.json`, lm-eval's `results_….json`) become evidence of the version.

        pushed = adaptry.push(registry, "out", "acme/tone", metrics={"accuracy": 0.91})
        print(pushed.version.label)

    Args:
        registry: An open registry, a server's URL, or a folder, in which a registry is created
            unless it holds one.
        source: The folder that PEFT's `save_pretrained` wrote, an adapter on a hub (`"hf:org/name"`, or
            `"hf:org/name@revision"`), or an `Adapter` that is open.
        name: The adapter's name, as in `"acme/tone"`. If it is new, the adapter is created, and is private.
        metrics: Numbers that are stored with the version, at most 64; not True or False.
        alias: An alias to point at the version, as in `"staging"`.
        description: What the adapter is for; replaces the adapter's description.
        tags: At most 64 tags without spaces or commas; they replace the adapter's tags.
        base: The model it was trained on: a name, an id or a folder. None: the one that its config names.
        parents: The versions that it was made from.
        provenance: Facts about its origin, as in `{"commit": "9f2c1e"}`. With parents or provenance,
            identical files are a new version unless these are identical too.
        force_reason: Pushes even though the checks refuse the adapter; the reason is stored with the version.
        progress: False shows no bars.

    Raises:
        NotFound: there is no adapter in the folder, or the base or a parent does not exist.
        CheckFailed: the adapter cannot work; the message lists the reasons and their remedies.
        Unsupported: a pickle, or another file that is not accepted.
        InvalidConfig, InvalidWeights: a malformed file.
        Invalid: a malformed name, metric, alias or tag.
        Conflict: the config's path matches several bases.
        PermissionDenied, Unauthenticated, Unavailable, StorageFull.
    """
    to = parse_name(name)
    options = push_options(metrics, alias, force_reason)
    edit = validated(AdapterEdit, SENTENCES, description=description, tags=tags)
    with opened(registry, create=True) as to_registry, shown_progress(progress) as bars:
        if isinstance(source, str) and is_hub_ref(source):
            if parents or provenance:
                raise Invalid(
                    "parents and provenance cannot be given for an adapter from a hub: leave them out"
                )
            pushed = _push_from_hub(to_registry, source, to, base, options, bars)
        else:
            pushed = transfer.push(
                to_registry,
                source if isinstance(source, Adapter) else open_dir(source),
                to,
                base=None if base is None else parse_base(base),
                options=options,
                parents=tuple(to_registry.versions.get(parse_ref(each)).digest for each in parents),
                provenance=provenance,
                progress=bars,
            )
        if description is not None or tags is not None:
            to_registry.adapters.edit(to, edit)
        if isinstance(source, Path | str) and not is_hub_ref(str(source)):
            _add_evidence(to_registry, Path(source), pushed.version, bars)
    return pushed


@python_errors
def pull(
    registry: RegistryLike,
    ref: RefLike,
    folder: Path | str | None = None,
    *,
    replace: bool = False,
    include_withdrawn: bool = False,
    progress: ShowProgress = True,
) -> VersionInfo:
    """Writes the files of the version that `ref` selects now into `folder`, which then contains exactly these
    files, verified.

    The folder appears complete or not at all; a folder that already has exactly these files stays unchanged.
    A warning is logged for a version that is deprecated or yanked.

        adaptry.pull(registry, "acme/tone@prod", "./tone")

    Args:
        registry: An open registry, a server's URL, or a folder.
        ref: The version, as in `"acme/tone@3"`, `"acme/tone@prod"`, or what `push` or `search` returned.
        folder: Where to write it. None: a folder with the adapter's name in the working directory.
        replace: Whether another adapter in that folder is replaced. Other files never are.
        include_withdrawn: Also pulls a quarantined or revoked version, if you may read it.
        progress: False shows no bars.

    Raises:
        NotFound: there is no such version, or you may not see it.
        Conflict: the folder contains something else.
        Withdrawn: the version is quarantined or revoked.
        DigestMismatch: the received bytes are not the version's.
        Unauthenticated, Unavailable, StorageFull.
    """
    parsed = parse_ref(ref)
    target = Path(parsed.name.name if folder is None else folder)
    with (
        opened(registry) as from_registry,
        explain_empty_adapter(from_registry.adapters, parsed),
        shown_progress(progress) as bars,
    ):
        version = transfer.pull(
            from_registry,
            parsed,
            target,
            force=replace,
            include_withdrawn=include_withdrawn,
            progress=bars,
        )
    if warning := state_warning(version):
        warn(warning)
    return version


def _add_evidence(registry: Registry, folder: Path, version: VersionInfo, progress: Progress) -> None:
    paths = find_result_files(folder)
    if paths:
        from adaptry.operations.evidence.folder_evidence import add_folder_evidence

        for failure in add_folder_evidence(registry, paths, version, progress).failures:
            warn(failure)


def _push_from_hub(
    registry: Registry,
    source: str,
    name: AdapterName,
    base: BaseLike | None,
    options: PushOptions,
    progress: Progress,
) -> PushResult:
    from adaptry.operations.hf_import.adapters import push_from_hub
    from adaptry.operations.hf_import.hub_client import open_hub

    named = None if base is None else BaseRecogniser(registry.bases).named(parse_base(base))
    ref = HubRef.parse(source)
    return push_from_hub(
        registry, open_hub(), ref, name, base=named, options=options, progress=progress
    ).pushed
