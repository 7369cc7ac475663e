"""The steps by which a tokenizer turns a text into ids, each as a digest: equal digests give equal ids.

The digests cover `tokenizer.json`, in a uniform spelling where versions of the `tokenizers` library differ,
and without fields that do not change ids (offsets, padding, truncation, the decoder). The vocabulary is in
`adaptry.bases.fingerprinting.vocabulary`. Standard library only, since a child process runs this on untrusted
files.
"""

from __future__ import annotations

import hashlib
from collections.abc import Mapping
from typing import Any

from adaptry.core import strictjson
from adaptry.core.errors import Invalid

_DEFAULTS: Mapping[str, Any] = {"use_regex": True, "split": True, "max_input_chars_per_word": 100}
_OFFSETS = frozenset(["trim_offsets", "str_rep", "add_prefix_space"])
_FLAGS = ("single_word", "lstrip", "rstrip", "normalized")
_WHOLE = "A"
"""The place of the text in the layout of special tokens."""


def steps_of(document: Any) -> dict[str, str]:
    """A digest for each step: `model` (its kind, options and merges), `normalizer`, `pre_tokenizer` and
    `special_tokens` (those added before and after a text). (`Any`: JSON.) Raises `Invalid`.
    """
    try:
        normalizer = _sequence(document.get("normalizer"), "normalizers")
        pre_tokenizer = _sequence(document.get("pre_tokenizer"), "pretokenizers")
        if not pre_tokenizer and [part["type"] for part in normalizer] == ["Prepend", "Replace"]:
            normalizer, pre_tokenizer = [], _spaces(normalizer)
        found = {
            "model": _model(document["model"]),
            "normalizer": normalizer,
            "pre_tokenizer": pre_tokenizer,
            "special_tokens": _special_tokens(document.get("post_processor")),
        }
        return {step: hashlib.sha256(strictjson.canonical(it)).hexdigest()[:16] for step, it in found.items()}
    except (AttributeError, IndexError, KeyError, TypeError, ValueError) as error:
        raise Invalid(f"the tokenizer has an unexpected structure: {error!r}"[:200]) from None


def added_flags(document: Any) -> dict[str, str]:
    """How added tokens with options are found in a text. (`Any`: JSON.)"""
    tokens = document.get("added_tokens") or [] if isinstance(document, dict) else []
    flags_of = {
        str(token["content"]): " ".join(flag for flag in _FLAGS if token.get(flag)) for token in tokens
    }
    return {content: flags for content, flags in flags_of.items() if flags}


def _model(model: Mapping[str, Any]) -> dict[str, Any]:
    options = {key: value for key, value in model.items() if key not in ("vocab", "merges", "dropout")}
    vocabulary = model["vocab"]
    if isinstance(vocabulary, list):  # Unigram: pairs of token and score
        options |= {"type": "Unigram", "scores": [float(entry[1]) for entry in vocabulary]}
    merges = model.get("merges") or []
    if merges:
        options["type"] = "BPE"  # old files omit it
    if options.get("byte_fallback"):  # then no text is unknown
        options = {key: value for key, value in options.items() if key not in ("unk_token", "fuse_unk")}
    pairs = [merge.split(" ", 1) if isinstance(merge, str) else list(merge) for merge in merges]
    return {**_without_defaults(options), "merges": pairs}


def _sequence(step: Any, inside: str) -> list[dict[str, Any]]:
    """The parts of a step in order; a single part is a sequence of one. (`Any`: JSON.)"""
    if step is None:
        return []
    if step.get("type") == "Sequence":
        return [part for each in step[inside] for part in _sequence(each, inside)]
    if step.get("type") == "Metaspace":
        scheme = step.get("prepend_scheme") or ("always" if step.get("add_prefix_space", True) else "never")
        step = {**step, "prepend_scheme": "always" if scheme == "first" else scheme}
        return [_without_defaults({key: value for key, value in step.items() if key not in _OFFSETS})]
    return [_without_defaults({key: value for key, value in step.items() if key != "trim_offsets"})]


def _spaces(parts: list[dict[str, Any]]) -> list[dict[str, Any]]:
    """Llama's handling of spaces in the form of a pre-tokenizer, as transformers 5 saves these two parts. (It
    applies only to the beginning of a text; in transformers 4, to every part between special tokens.)
    """
    prepend, replace = parts
    is_usual = replace.get("pattern") == {"String": " "} and replace.get("content") == prepend.get("prepend")
    if not is_usual:
        return parts
    return [
        {"type": "Metaspace", "replacement": prepend["prepend"], "prepend_scheme": "always", "split": False}
    ]


def _special_tokens(step: Any) -> list[Any]:
    """The ids before and after a text, with `A` in the text's place. (`Any`: JSON.)"""
    if step is None or step.get("type") == "ByteLevel":  # changes offsets only
        return [_WHOLE]
    if step["type"] == "Sequence":
        around: list[Any] = [_WHOLE]
        for part in step["processors"]:
            inner = _special_tokens(part)
            place = inner.index(_WHOLE)
            around = [*inner[:place], *around, *inner[place + 1 :]]
        return around
    if step["type"] in ("BertProcessing", "RobertaProcessing"):
        return [step["cls"][1], _WHOLE, step["sep"][1]]
    if step["type"] == "TemplateProcessing":
        return [each for part in step["single"] for each in _of_template(part, step["special_tokens"])]
    return [_without_defaults(step), _WHOLE]


def _of_template(part: Mapping[str, Any], tokens: Mapping[str, Any]) -> list[Any]:
    if "SpecialToken" not in part:
        return [_WHOLE]
    return list(tokens[part["SpecialToken"]["id"]]["ids"])


def _without_defaults(fields: Mapping[str, Any]) -> dict[str, Any]:
    """The fields, except those whose value means the same as absence."""
    return {
        key: value
        for key, value in fields.items()
        if value is not None and value not in ("", [], {}) and value is not _DEFAULTS.get(key, False)
    }
