"""Whether an adapter's tokenizer and chat template are those of the base.

The base's record has digests of its vocabulary, so differences are found in blocks of 1,024 ids. Added tokens
are compared one by one, and the steps from text to ids by their digests. Tokens may be added on purpose, with
trained embeddings or in reserved places, and an adapter may be trained with another template; but different
ids for the same tokens are never intended.

A child process reads the untrusted files. If an older record of a base lacks these digests, a finding notes
it; a base without a tokenizer is not compared.
"""

from __future__ import annotations

import json
from collections.abc import Iterator, Mapping
from typing import Any

from adaptry.adapters.adapter import Adapter
from adaptry.adapters.base_record import BaseRecord, Vocabulary
from adaptry.adapters.tensor_names import INPUT_EMBEDDINGS, input_embedding
from adaptry.bases.fingerprinting import chat_template
from adaptry.bases.fingerprinting.vocabulary import ADDED, BLOCK, TOKENIZER, VOCABULARY
from adaptry.checks.codes import build_finding
from adaptry.checks.finding_text import format_count, shorten_names, verb_form
from adaptry.core.digest import Digest
from adaptry.core.errors import Invalid, Unavailable
from adaptry.core.processes.bounded import ProcessFailed, ProcessLimits, ProcessTimeout
from adaptry.core.processes.json_check import loads_in_child
from adaptry.core.processes.slots import ProcessSlots
from adaptry.core.processes.worker_pool import run_in_worker
from adaptry.core.report import Finding
from adaptry.core.strictjson import JsonLimits

_STEPS = {
    "model": "the model (its kind, options or merges)",
    "normalizer": "the normalizer",
    "pre_tokenizer": "the pre-tokenizer",
    "special_tokens": "the special tokens around a text",
}
_MIB = 1 << 20
_LIMITS = JsonLimits(size=64 * _MIB, depth=16, nodes=6_000_000)
_TEMPLATE_LIMITS = JsonLimits(size=4 * _MIB, depth=16, nodes=20_000)
_SLOTS = ProcessSlots(running=2, waiting=8, timeout=120.0)


def check_tokenizer(adapter: Adapter, base: BaseRecord) -> Iterator[Finding]:
    """The findings about the adapter's tokenizer and template. Raises `Unavailable`."""
    try:
        if base.vocabulary is not None and (found := _compare(adapter, base.vocabulary)) is not None:
            yield from _tokens(adapter, base, found)
            yield from _steps(base, found)
        if base.tokenizer is not None and base.tokenization is None and TOKENIZER in adapter.content.sizes:
            yield build_finding("tokenizer_not_compared", "the base's record lacks its tokenizer's steps")
        if base.chat_template is not None and (theirs := _template(adapter)) not in (
            None,
            base.chat_template,
        ):
            assert theirs is not None
            reason = f"its chat template is {theirs.brief}, but the base's is {base.chat_template.brief}"
            yield build_finding("chat_template_differs", reason)
    except Invalid as error:
        yield build_finding("tokenizer_unreadable", error.message)


def _compare(adapter: Adapter, known: Vocabulary) -> Mapping[str, Any] | None:
    """The result of `vocabulary.compare` for the adapter's files, or None. (`Any`: JSON.)"""
    sizes = adapter.content.sizes
    names = (
        [TOKENIZER] if TOKENIZER in sizes else [name for name in (VOCABULARY, ADDED) if VOCABULARY in sizes]
    )
    files = [adapter.content.read_all(name, _LIMITS.size) for name in names if name in sizes]
    if not files:
        return None
    data = b"".join(files)
    mib = len(data) // _MIB + 1
    bounds = ProcessLimits(4.0 + 2.0 * mib, (256 + 64 * mib) * _MIB)
    limits = [str(_LIMITS.size), str(_LIMITS.depth), str(_LIMITS.nodes)]
    lengths = json.dumps([len(file) for file in files])
    try:
        with _SLOTS.acquire("tokenizers"):
            answer = run_in_worker(
                "adaptry.bases.fingerprinting.vocabulary",
                data,
                bounds,
                [*limits, lengths, known.model_dump_json()],
            )
    except ProcessTimeout:
        raise Invalid(f"the tokenizer takes more than {bounds.seconds:.0f} s to read") from None
    except ProcessFailed as error:
        raise Unavailable(f"the tokenizer could not be read: {error}") from error
    found: dict[str, Any] = json.loads(answer)
    if "refused" in found:
        raise Invalid(found["refused"])
    return found


def _tokens(adapter: Adapter, base: BaseRecord, found: Mapping[str, Any]) -> Iterator[Finding]:
    """(`Any`: JSON.)"""
    wrong, reasons = found["blocks"], []
    if wrong:
        count = len(base.vocabulary.blocks) if base.vocabulary else 0
        first = f"{wrong[0] * BLOCK:,} to {(wrong[0] + 1) * BLOCK - 1:,}"
        reasons.append(
            f"its tokens differ from the base's in {len(wrong):,} of {format_count(count, 'block')} of"
            f" {BLOCK:,} ids, first in the ids {first}"
        )
    for token, there, here in found["moved"]:
        reasons.append(f"{token[:40]!a} has the id {here:,}, but in the base {there:,}")
    if reasons:
        yield build_finding("tokenizer_differs", "; ".join(reasons))
    if found["replaced"]:
        shown = [f"{here[:40]!a} for {there[:40]!a}" for _, there, here in found["replaced"]]
        count = found["replaced_count"]
        yield build_finding(
            "tokens_replaced",
            f"{format_count(count, 'added token')} {verb_form(count, 'differs', 'differ')}:"
            f" {shorten_names(shown)}",
        )
    if found["new"] and not wrong:
        shown = [f"{token[:40]!a}" for token in found["examples"]]
        reason = f"it adds {format_count(found['new'], 'token')}: {shorten_names(shown)}"
        rows = _rows(base)
        if rows is not None and found["last"] >= rows and not _has_whole_embedding(adapter):
            reason += f"; the last one is {found['last']:,}, but the base's embedding has {rows:,} rows"
            yield build_finding("tokens_without_rows", reason)
        else:
            yield build_finding("tokens_added", reason)


def _steps(base: BaseRecord, found: Mapping[str, Any]) -> Iterator[Finding]:
    """(`Any`: JSON.)"""
    known = base.tokenization
    if known is None or not found["steps"]:
        return
    different = [_STEPS[step] for step, digest in known.steps.items() if found["steps"].get(step) != digest]
    added = base.vocabulary.added.keys() if base.vocabulary else set()
    flagged = [
        token
        for token in sorted(added - set(found["absent"]))
        if known.added.get(token, "") != found["flags"].get(token, "")
    ]
    if flagged:
        shown = shorten_names([f"{token[:40]!a}" for token in flagged])
        different.append(f"where added tokens are found in a text ({shown})")
    if different:
        yield build_finding("tokenization_differs", f"its tokenizer differs in {', '.join(different)}")


def _rows(base: BaseRecord) -> int | None:
    embedding = input_embedding(base.tensors)
    return base.tensors[embedding].shape[0] if embedding else None


def _has_whole_embedding(adapter: Adapter) -> bool:
    """Whether the adapter has a complete embedding, which may have more rows than the base's."""
    return any(
        extra.kind != "token_rows" and extra.target.split(".")[-2] in INPUT_EMBEDDINGS
        for extra in adapter.spec.extras
    )


def _template(adapter: Adapter) -> Digest | None:
    """The digest of the adapter's chat template; None if it has none. Raises `Invalid`."""
    sizes = adapter.content.sizes
    for name in chat_template.FILES:
        if name not in sizes:
            continue
        data = adapter.content.read_all(name, _TEMPLATE_LIMITS.size)
        if name.endswith(".jinja"):
            text = data.decode("utf-8", "replace")
        else:
            text = chat_template.default_template(loads_in_child(data, _TEMPLATE_LIMITS, name)) or ""
        if text.strip():
            return chat_template.template_digest(text)
    return None
