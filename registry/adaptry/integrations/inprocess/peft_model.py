"""Puts an adapter into a PEFT model, and checks it before and after: weights that match no module are an
error. PEFT does the loading, except for a plain LoRA next to others.

PEFT only warns about keys that match nothing, and the model then answers like its base. Here that raises
`CheckFailed`, and the model is unchanged.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence, Set
from contextlib import contextmanager
from typing import TYPE_CHECKING, Any

from adaptry.adapters.adapter import Adapter
from adaptry.adapters.formats import PEFT
from adaptry.checks.finding_text import fold_layer_numbers, shorten_names
from adaptry.core.errors import AdaptryError, CheckFailed, Conflict, Invalid, Unsupported
from adaptry.integrations.inprocess.fetch import FetchedFiles
from adaptry.integrations.inprocess.lora_placement import lora_placement

if TYPE_CHECKING:
    from peft import PeftModel
    from torch.nn import Module

_PROMPT = "prompt_embeddings"
"""PEFT puts a prompt's rows in place itself, and then counts their key as one of no module."""


def require_model(model: object) -> None:
    """Raises `Invalid` if `into` is not a model, or is a model without weights: PEFT would then drop the
    adapter's weights too, with only a warning.
    """
    from torch.nn import Module

    if not isinstance(model, Module):
        raise Invalid(f"into must be a transformers or PEFT model, not {type(model).__name__}")
    if all(parameter.is_meta for parameter in model.parameters()):
        raise Invalid(f"this {type(model).__name__} has no weights yet (device meta): load them first")


def add_adapter(model: Module, files: FetchedFiles, name: str, trainable: bool) -> PeftModel:
    """The PEFT model with the adapter `name` in it, active if the model had none.

    Raises `Conflict` if the name is taken, `Unsupported` for a file of another tool, `CheckFailed` if the
    adapter does not fit.
    """
    from peft import PeftModel

    adapter = files.adapter
    _require_peft(adapter, files)
    if not isinstance(model, PeftModel):
        _require_modules(model, adapter, files)
        return _wrapped(model, files, name, trainable)
    if name not in model.peft_config and not trainable:
        placement = lora_placement(model, files, name)
        if placement is not None:
            placement.apply(name)
            return model
    _require_modules(model, adapter, files)
    if name in model.peft_config:
        raise Conflict(
            f"the model has an adapter {name!r}; choose another name, or pass hotswap=True to replace it"
        )
    others = {key for key, _ in model.named_parameters(remove_duplicate=False)}
    with _undone(model, files, lambda: _dropped(model, name)):
        _loaded(model, files, name, trainable, others)
    return model


def _wrapped(model: Module, files: FetchedFiles, name: str, trainable: bool) -> PeftModel:
    from peft import PeftConfig, get_peft_model

    _require_untouched(model)
    with _undone(model, files, lambda: _unwrap(model)):
        config = PeftConfig.from_pretrained(str(files.folder))
        config.inference_mode = not trainable
        placed: PeftModel = get_peft_model(model, config, adapter_name=name)
        _loaded(placed, files, name, trainable)
        return placed


def _loaded(
    model: PeftModel, files: FetchedFiles, name: str, trainable: bool, others: Set[str] = frozenset()
) -> None:
    """Loads the adapter, and checks that nothing is missing or left over. `others`: the parameters that the
    model had before. PEFT counts a parameter of another adapter as missing if `name` occurs anywhere in its
    path, as with an adapter `f` next to `default`, or `tone` next to `tone-2`.
    """
    result = model.load_adapter(str(files.folder), adapter_name=name, is_trainable=trainable)
    spare = [key for key in result.unexpected_keys if key != _PROMPT]
    missing = [key for key in result.missing_keys if key not in others]
    _require_none(spare, "of its weights match nothing in the model", files)
    _require_none(missing, "weights of the model have no values in the file", files)


def _require_peft(adapter: Adapter, files: FetchedFiles) -> None:
    if adapter.format is not PEFT:
        raise Unsupported(
            f"{files} is in the format {adapter.format.name}, which PEFT does not read; "
            "convert it to PEFT's layout first: adaptry convert REF -o NAME"
        )


def _require_modules(model: Module, adapter: Adapter, files: FetchedFiles) -> None:
    """Checks the adapter's modules. PEFT matches names by their ends and translates old ones, so only missing
    ones are reported here.
    """
    paths = [module.path for module in adapter.spec.modules]
    if not paths:
        return
    present = {name.rpartition(".")[2] for name, _ in model.named_modules()}
    present |= {name.rpartition(".")[2] for name, _ in model.named_parameters()}
    if not any(path.rpartition(".")[2] in present for path in paths):
        raise CheckFailed(
            f"{files} changes {shorten_names(fold_layer_numbers(paths))}, and {type(model).__name__} has no"
            " such module; check that it is the base that the adapter was trained on"
        )


def _require_untouched(model: Module) -> None:
    """Refuses a model that PEFT has already wrapped: PEFT changes the model that it wraps, so two wrappers
    would use each other's adapters.
    """
    from peft.tuners.tuners_utils import BaseTunerLayer
    from peft.utils import ModulesToSaveWrapper

    if any(isinstance(module, BaseTunerLayer | ModulesToSaveWrapper) for module in model.modules()):
        raise Conflict(
            f"this {type(model).__name__} already has an adapter; load into the PEFT model around it "
            "(placed.model) under another name, or unload it first (placed.model.unload())"
        )


def _require_none(keys: Sequence[str], what: str, files: FetchedFiles) -> None:
    if keys:
        raise CheckFailed(
            f"{files}: {len(keys)} {what} ({shorten_names(sorted(keys))}); "
            "`adaptry check --base` shows the reasons"
        )


@contextmanager
def _undone(model: Module, files: FetchedFiles, undo: Any) -> Iterator[None]:
    """Restores the model after any error, PEFT's or ours."""
    try:
        yield
    except AdaptryError:
        undo()
        raise
    except (RuntimeError, ValueError, TypeError, KeyError, AttributeError, NotImplementedError) as error:
        undo()
        raise CheckFailed(f"PEFT does not load {files} into {type(model).__name__}: {error}") from error


def _dropped(model: PeftModel, name: str) -> None:
    if name in model.peft_config:
        model.delete_adapter(name)


def _unwrap(model: Module) -> None:
    """Removes the layers that PEFT had inserted before the error."""
    from peft.tuners.tuners_utils import BaseTunerLayer
    from peft.utils import ModulesToSaveWrapper

    for path, module in list(model.named_modules()):
        if isinstance(module, BaseTunerLayer):
            inner = module.get_base_layer()
        elif isinstance(module, ModulesToSaveWrapper):
            inner = module.original_module
        else:
            continue
        parent, _, last = path.rpartition(".")
        setattr(model.get_submodule(parent), last, inner)
    if hasattr(model, "peft_config"):
        del model.peft_config
