"""Translates mergekit's YAML over LoRA adapters into one of our recipes.

mergekit merges whole models; a LoRA is named `base+adapter` there and merged into its base first. Where all
models are one base plus a LoRA, the same methods of the updates give the same numbers, up to roundings (the
page on combining has the table). A feature without an equivalent is refused, and the error shows the nearest
recipe. Source: mergekit 0.1.5, `config.py` (fields; a model's parameters precede the document's), and the
defaults in `merge_methods/`.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from adaptry.core.errors import Invalid, Unsupported
from adaptry.core.lazy_dataclass import dataclass
from adaptry.core.suggestions import suggestion

_PAGE = "docs/combining.md#from-mergekit"


@dataclass(frozen=True, slots=True)
class MergekitMethod:
    """Our method for one of mergekit's, and its defaults there. `is_election`: `normalize` divides by the
    agreeing weights.
    """

    name: str
    parameters: tuple[str, ...] = ()
    is_election: bool = False
    normalize: bool | None = None
    rescale: bool | None = None


_METHODS: Mapping[str, MergekitMethod] = {
    "linear": MergekitMethod("linear", normalize=True),
    "task_arithmetic": MergekitMethod("linear", ("lambda",), normalize=False),
    "ties": MergekitMethod("ties", ("density", "lambda"), True, True, False),
    "dare_linear": MergekitMethod("dare_linear", ("density", "lambda"), False, False, True),
    "dare_ties": MergekitMethod("dare_ties", ("density", "lambda"), True, False, True),
    "della": MergekitMethod("della", ("density", "epsilon", "lambda"), True, True, True),
    "della_linear": MergekitMethod("della_linear", ("density", "epsilon", "lambda"), False, False, True),
    "breadcrumbs": MergekitMethod("breadcrumbs", ("density", "gamma", "lambda"), False, False, False),
    "breadcrumbs_ties": MergekitMethod(
        "breadcrumbs_ties", ("density", "gamma", "lambda"), True, False, False
    ),
    "sce": MergekitMethod("sce", ("select_topk",)),
    "model_stock": MergekitMethod("model_stock", ("filter_wise",)),
    "nuslerp": MergekitMethod("nuslerp", ("nuslerp_flatten", "nuslerp_row_wise")),
    "multislerp": MergekitMethod("multislerp", ("normalize_weights",)),
}
_WHOLE_MODELS = {"slerp": "nuslerp", "karcher": "karcher", "nearswap": "ties", "arcee_fusion": "sce"}
"""Methods whose result depends on the weights of whole models, and our nearest method."""
_DEFAULTS: Mapping[str, object] = {"density": 1.0, "gamma": 0.01, "epsilon": 0.15, "lambda": 1.0}
_READ = {"merge_method", "models", "base_model", "parameters", "dtype", "out_dtype"}
_WITHOUT_EFFECT = {"tokenizer_source", "tokenizer", "chat_template"}
"""Keys that concern only whole models; an adapter has nothing that corresponds."""


def is_mergekit(document: Mapping[str, object]) -> bool:
    return "merge_method" in document


def translate_mergekit(document: Mapping[str, Any], label: str) -> dict[str, Any]:
    """The document of the equivalent recipe. (`Any`: YAML.) Raises `Invalid`, `Unsupported`."""
    if "slices" in document or "modules" in document:
        raise Unsupported(
            f"{label} assembles a model from slices, which adapters cannot do; list whole adapters under"
            " models:"
            f" ({_PAGE})"
        )
    if unknown := sorted(document.keys() - _READ - _WITHOUT_EFFECT):
        raise Invalid(f"{label}: mergekit has no key {unknown[0][:80]!r}{suggestion(unknown[0], _READ)}")
    sources = _sources(document, label)
    method = _method(str(document["merge_method"]), list(sources), label)
    shared = _mapping(document.get("parameters"), f"{label}: parameters")
    settings = {source: {**shared, **given} for source, given in sources.items()}
    weights = {
        source: _number(given.get("weight", 1.0), f"{label}: weight of {source}")
        for source, given in settings.items()
    }
    parameters = _parameters(method, settings, label)
    if method.name == "linear":
        weights = _linear_weights(method, weights, parameters, settings, label)
        parameters = {}
    recipe: dict[str, Any] = {
        "method": method.name,
        "inputs": [{"source": source, "weight": weight} for source, weight in weights.items()],
    }
    if parameters:
        recipe["parameters"] = parameters
    if dtype := document.get("out_dtype") or document.get("dtype"):
        recipe["dtype"] = dtype
    return recipe


def _sources(document: Mapping[str, Any], what: str) -> dict[str, Mapping[str, Any]]:
    """The adapters, each with its parameters; a base that is listed among the models is skipped."""
    models = document.get("models")
    if not isinstance(models, list) or not models:
        raise Invalid(f"{what}: models is a list, as in [{{model: org/model+acme/tone}}]")
    base = _text(document["base_model"], f"{what}: base_model") if document.get("base_model") else None
    bases = {base} if base else set()
    found: dict[str, Mapping[str, Any]] = {}
    for entry in models:
        fields = _mapping(entry, f"{what}: an entry of models")
        model, _, lora = _text(fields.get("model"), f"{what}: model").partition("+")
        if not lora and model == base:
            continue
        source = lora or model
        if source in found:
            raise Invalid(f"{what}: {source[:200]!r} is listed twice")
        found[source] = _mapping(fields.get("parameters"), f"{what}: parameters of {source}")
        bases |= {model} if lora else set()
    if len(bases) > 1:
        raise Unsupported(
            f"{what}: the adapters are for different bases ({', '.join(sorted(bases))}); adapters of one base"
            " can be combined"
        )
    if not found:
        raise Invalid(
            f"{what}: models lists only the base; list adapters, as in {base or 'org/model'}+acme/tone"
        )
    return found


def _method(name: str, sources: Sequence[str], what: str) -> MergekitMethod:
    if name in _METHODS:
        return _METHODS[name]
    if near := _WHOLE_MODELS.get(name):
        inputs = ", ".join(sources)
        raise Unsupported(
            f"{what}: mergekit's {name} depends on the weights of whole models; the nearest recipe for "
            f"adapters is:\nmethod: {near}\ninputs: [{inputs}]"
        )
    raise Unsupported(
        f"{what}: mergekit's method {name[:40]!r} has no equivalent in Adaptry{suggestion(name, _METHODS)}"
        f" (there are {', '.join(_METHODS)})"
    )


def _parameters(
    method: MergekitMethod, settings: Mapping[str, Mapping[str, Any]], what: str
) -> dict[str, Any]:
    """The method's parameters here, from those that are equal for all models."""
    found: dict[str, Any] = {}
    for name in method.parameters:
        value = _alike(name, _DEFAULTS.get(name), settings, what)
        match name:
            case "epsilon":
                found["epsilon"] = 2 * _number(value, f"{what}: epsilon")
            case "select_topk":
                found["select"] = 1.0 if value is None else _number(value, f"{what}: select_topk")
            case "filter_wise":
                found["over"] = "rows" if value else "tensor"
            case "nuslerp_flatten":
                found["over"] = "rows" if value is False else "tensor"
            case "nuslerp_row_wise":
                found["over"] = "columns" if value and found["over"] == "rows" else found["over"]
            case "normalize_weights":
                found["normalize"] = value is not False
            case _:
                found[name] = _number(value, f"{what}: {name}")
    if method.normalize is not None:
        normalize = bool(_alike("normalize", method.normalize, settings, what))
        if method.is_election:
            found["divide"] = "weights" if normalize else "none"
        else:
            found["normalize"] = normalize
    if method.rescale is not None:
        found["rescale"] = "l1" if _alike("rescale", method.rescale, settings, what) else "none"
    return found


def _linear_weights(
    method: MergekitMethod,
    weights: Mapping[str, float],
    parameters: Mapping[str, Any],
    settings: Mapping[str, Mapping[str, Any]],
    what: str,
) -> dict[str, float]:
    """The weights for our `linear`, which has no parameters: mergekit's parameters are applied to the
    weights.
    """
    total = sum(weights.values())
    if not parameters["normalize"]:
        if "lambda" not in method.parameters and abs(total - 1.0) > 1e-9:
            raise Unsupported(
                f"{what}: linear with normalize: false and weights that sum to {total:g} also scales the"
                " base,"
                " which no adapter can do; let the weights sum to 1, or use merge_method: task_arithmetic"
            )
        return {source: weight * parameters.get("lambda", 1.0) for source, weight in weights.items()}
    if total == 0:
        raise Invalid(f"{what}: the weights sum to 0 and cannot be normalized")
    return {source: weight / total * parameters.get("lambda", 1.0) for source, weight in weights.items()}


def _alike(name: str, default: object, settings: Mapping[str, Mapping[str, Any]], what: str) -> Any:
    """The value that all models have in common. (`Any`: YAML.) Raises `Unsupported` if the models differ."""
    values = [given.get(name, default) for given in settings.values()]
    if any(value != values[0] for value in values):
        raise Unsupported(
            f"{what}: {name} differs between the models; a recipe here has one {name} for all inputs of"
            " a module"
            f" ({_PAGE})"
        )
    return values[0]


def _number(value: object, what: str) -> float:
    if isinstance(value, list | dict):
        raise Unsupported(
            f"{what} depends on the layer or the tensor; write our recipe and its modules:"
            f" [{{match: …}}] instead"
            f" ({_PAGE})"
        )
    if isinstance(value, bool) or not isinstance(value, int | float):
        raise Invalid(f"{what} is not a number: {str(value)[:80]!r}")
    return float(value)


def _text(value: object, what: str) -> str:
    if isinstance(value, dict):  # mergekit's long form: {model: {path: …}, lora: {path: …}}
        parts = [value.get("model"), value.get("lora")] if "model" in value else [value]
        return "+".join(_path(part, what) for part in parts if part is not None)
    return _path(value, what)


def _path(value: object, what: str) -> str:
    if isinstance(value, dict):
        path, revision = value.get("path"), value.get("revision")
        value = f"{path}@{revision}" if revision else path
    if not isinstance(value, str) or not value:
        raise Invalid(f"{what} is missing or not text")
    return value


def _mapping(value: object, what: str) -> Mapping[str, Any]:
    """(`Any`: YAML.)"""
    if value is None:
        return {}
    if not isinstance(value, dict):
        raise Invalid(f"{what} is not a mapping")
    return value
