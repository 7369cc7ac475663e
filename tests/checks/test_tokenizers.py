"""An adapter's tokenizer and chat template compared with those of its base, as transformers saves them."""

from __future__ import annotations

import json
import random
import re
from ast import literal_eval
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from adaptry.adapters.adapter import open_dir
from adaptry.adapters.base_record import BaseRecord
from adaptry.bases.fingerprinting import fingerprint
from adaptry.bases.hf_folder import open_checkpoint
from adaptry.checks import check
from adaptry.checks.base.tokenizer_example import with_example
from adaptry.core.report import Finding
from adaptry.testing.samples import random_tensor, tiny_base, tiny_lora

tokenizers = pytest.importorskip("tokenizers", reason="needs tokenizers")
transformers = pytest.importorskip("transformers", reason="needs transformers")

TEMPLATE = "{% for message in messages %}<|{{ message.role }}|>{{ message.content }}{% endfor %}"
RESERVED = ("<|pad|>", "<|reserved_0|>", "<|reserved_1|>")
VOCAB = 4000
EMBEDDING = "base_model.model.model.embed_tokens.weight"


@pytest.fixture(scope="module")
def trained(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A tokenizer trained here and saved by transformers, with over 1,024 tokens, three of them added."""
    tokenizer = tokenizers.Tokenizer(tokenizers.models.BPE())
    tokenizer.pre_tokenizer = tokenizers.pre_tokenizers.ByteLevel(add_prefix_space=False)
    tokenizer.decoder = tokenizers.decoders.ByteLevel()
    trainer = tokenizers.trainers.BpeTrainer(
        vocab_size=1500,
        initial_alphabet=tokenizers.pre_tokenizers.ByteLevel.alphabet(),
        special_tokens=list(RESERVED),
        show_progress=False,
    )
    letters = random.Random(0)
    words = ("".join(letters.choices("abcdefghijklmnopqrst", k=5)) for _ in range(4000))
    tokenizer.train_from_iterator([" ".join(words)] * 3, trainer)
    folder = tmp_path_factory.mktemp("tokenizer")
    fast = transformers.PreTrainedTokenizerFast(tokenizer_object=tokenizer, pad_token="<|pad|>")
    fast.chat_template = TEMPLATE
    fast.save_pretrained(folder)
    return folder


def load(folder: Path) -> Any:
    return transformers.PreTrainedTokenizerFast.from_pretrained(folder)


@pytest.fixture
def record(trained: Path, tmp_path: Path) -> BaseRecord:
    base = tiny_base(tmp_path / "base", vocab=VOCAB)
    load(trained).save_pretrained(base)
    return fingerprint(open_checkpoint(base))


@pytest.fixture
def found(record: BaseRecord, tmp_path: Path) -> Callable[..., dict[str, Finding]]:
    """The findings of an adapter that is saved with a tokenizer, by code."""

    def check_with(tokenizer: Any, **options: Any) -> dict[str, Finding]:
        adapter = tiny_lora(tmp_path / "adapter", **options)
        tokenizer.save_pretrained(adapter)
        return {finding.code: finding for finding in check(open_dir(adapter), record).findings}

    return check_with


def edit(tokenizer: Any, folder: Path, change: Callable[[dict[str, Any]], None]) -> Any:
    """The tokenizer after `change` of its `tokenizer.json`."""
    tokenizer.save_pretrained(folder)
    path = folder / "tokenizer.json"
    document = json.loads(path.read_text())
    change(document)
    path.write_text(json.dumps(document))
    return load(folder)


def test_the_bases_own_tokenizer_gives_no_finding(found: Any, trained: Path) -> None:
    assert found(load(trained)) == {}


def test_a_tokenizer_saved_by_peft_gives_no_finding(trained: Path, tmp_path: Path) -> None:
    peft = pytest.importorskip("peft", reason="needs peft")
    config = transformers.LlamaConfig(
        hidden_size=16, intermediate_size=32, num_hidden_layers=1, num_attention_heads=2, vocab_size=VOCAB
    )
    model = transformers.LlamaForCausalLM(config)
    model.save_pretrained(tmp_path / "base")
    load(trained).save_pretrained(tmp_path / "base")
    tuned = peft.get_peft_model(
        model, peft.LoraConfig(task_type="CAUSAL_LM", target_modules=["q_proj"], init_lora_weights=False)
    )
    tuned.save_pretrained(tmp_path / "tone")
    load(tmp_path / "base").save_pretrained(tmp_path / "tone")

    record = fingerprint(open_checkpoint(tmp_path / "base"))
    assert record.vocabulary is not None and record.chat_template is not None
    assert check(open_dir(tmp_path / "tone"), record).findings == ()


def test_a_reversed_vocabulary_blocks(found: Any, trained: Path, tmp_path: Path) -> None:
    def reverse(document: dict[str, Any]) -> None:
        last = max(document["model"]["vocab"].values())
        document["model"]["vocab"] = {token: last - id for token, id in document["model"]["vocab"].items()}
        for token in document["added_tokens"]:
            token["id"] = last - token["id"]

    finding = found(edit(load(trained), tmp_path / "reversed", reverse))["tokenizer_differs"]
    assert finding.severity == "blocks"
    assert "blocks of 1,024 ids" in finding.reason


def test_two_swapped_tokens_block(found: Any, trained: Path, tmp_path: Path) -> None:
    def swap(document: dict[str, Any]) -> None:
        vocab = document["model"]["vocab"]
        one, other = [token for token, id in vocab.items() if id in (1100, 1101)]
        vocab[one], vocab[other] = vocab[other], vocab[one]

    finding = found(edit(load(trained), tmp_path / "swapped", swap))["tokenizer_differs"]
    assert "in 1 of 2 blocks" in finding.reason
    assert "1,024 to 2,047" in finding.reason


def test_added_tokens_with_swapped_ids_block(found: Any, trained: Path, tmp_path: Path) -> None:
    def swap(document: dict[str, Any]) -> None:
        one, other = document["added_tokens"][1:3]
        one["content"], other["content"] = other["content"], one["content"]
        vocab = document["model"]["vocab"]
        vocab[RESERVED[1]], vocab[RESERVED[2]] = vocab[RESERVED[2]], vocab[RESERVED[1]]

    finding = found(edit(load(trained), tmp_path / "swapped", swap))["tokenizer_differs"]
    assert "'<|reserved_0|>' has the id 2, but in the base 1" in finding.reason


def test_a_reserved_token_that_was_renamed_warns(found: Any, trained: Path, tmp_path: Path) -> None:
    def rename(document: dict[str, Any]) -> None:
        document["added_tokens"][1]["content"] = "<|im_start|>"
        document["model"]["vocab"]["<|im_start|>"] = document["model"]["vocab"].pop(RESERVED[1])

    findings = found(edit(load(trained), tmp_path / "renamed", rename))
    assert {code: one.severity for code, one in findings.items()} == {"tokens_replaced": "warns"}
    assert "'<|im_start|>' for '<|reserved_0|>'" in findings["tokens_replaced"].reason


def reverse_merges(document: dict[str, Any]) -> None:
    document["model"]["merges"].reverse()


def lower_case(document: dict[str, Any]) -> None:
    document["normalizer"] = {"type": "Lowercase"}


def begin_with_a_space(document: dict[str, Any]) -> None:
    document["pre_tokenizer"]["add_prefix_space"] = True


def begin_with_a_token(document: dict[str, Any]) -> None:
    first = {"SpecialToken": {"id": "<|reserved_0|>", "type_id": 0}}
    document["post_processor"] = {
        "type": "TemplateProcessing",
        "single": [first, {"Sequence": {"id": "A", "type_id": 0}}],
        "pair": [first, {"Sequence": {"id": "A", "type_id": 0}}, {"Sequence": {"id": "B", "type_id": 1}}],
        "special_tokens": {
            "<|reserved_0|>": {"id": "<|reserved_0|>", "ids": [1], "tokens": ["<|reserved_0|>"]}
        },
    }


def strip_around_a_token(document: dict[str, Any]) -> None:
    document["added_tokens"][1]["lstrip"] = True


@pytest.mark.parametrize(
    ("change", "reason"),
    [
        (reverse_merges, "the model (its kind, options or merges)"),
        (lower_case, "the normalizer"),
        (begin_with_a_space, "the pre-tokenizer"),
        (begin_with_a_token, "the special tokens around a text"),
        (strip_around_a_token, "where added tokens are found in a text ('<|reserved_0|>')"),
    ],
)
def test_different_tokenizer_steps_warn_with_the_differences(
    change: Callable[[dict[str, Any]], None], reason: str, record: BaseRecord, trained: Path, tmp_path: Path
) -> None:
    adapter = open_dir(with_tokenizer(tiny_lora(tmp_path / "adapter"), trained, change))
    (finding,) = check(adapter, record).findings
    assert (finding.code, finding.severity) == ("tokenization_differs", "warns")
    assert finding.reason == f"its tokenizer differs in {reason}"
    (told,) = with_example([finding], adapter, record, [tmp_path / "nowhere", tmp_path / "base"])
    text = re.search(r"; for example ('.+?') becomes .+, but with the base's .+", told.reason)
    assert text is not None, told.reason
    files = [tmp_path / "adapter" / "tokenizer.json", tmp_path / "base" / "tokenizer.json"]
    ours, bases = (tokenizers.Tokenizer.from_file(str(file)) for file in files)
    assert ours.encode(literal_eval(text[1])).ids != bases.encode(literal_eval(text[1])).ids


def with_tokenizer(folder: Path, trained: Path, change: Callable[[dict[str, Any]], None]) -> Path:
    """The folder with the tokenizer after `change` of its `tokenizer.json`."""
    document = json.loads((trained / "tokenizer.json").read_text())
    change(document)
    (folder / "tokenizer.json").write_text(json.dumps(document))
    return folder


def spell_otherwise(document: dict[str, Any]) -> None:
    """Writes the tokenizer like an older version of `tokenizers`, with padding and truncation."""
    model = document["model"]
    model["merges"] = [" ".join(merge) for merge in model["merges"]]
    del model["type"], document["pre_tokenizer"]["use_regex"]
    document["pre_tokenizer"] = {"type": "Sequence", "pretokenizers": [document["pre_tokenizer"]]}
    document["post_processor"] = {"type": "ByteLevel", "add_prefix_space": True, "trim_offsets": False}
    document["truncation"] = {"max_length": 8, "stride": 0, "strategy": "LongestFirst", "direction": "Right"}
    document["padding"] = None
    document["decoder"] = None


def llamas_spaces(document: dict[str, Any]) -> None:
    """Writes Llama 2's tokenizer like transformers 4; transformers 5 saves it with a pre-tokenizer."""
    space = {"type": "Replace", "pattern": {"String": " "}, "content": "▁"}
    document["normalizer"] = {
        "type": "Sequence",
        "normalizers": [{"type": "Prepend", "prepend": "▁"}, space],
    }
    document["pre_tokenizer"] = None
    document["model"] |= {"byte_fallback": True, "fuse_unk": True, "unk_token": "<|pad|>"}


def test_a_tokenizer_saved_again_by_transformers_gives_no_finding(trained: Path, tmp_path: Path) -> None:
    base = with_tokenizer(tiny_base(tmp_path / "base", vocab=VOCAB), trained, llamas_spaces)
    settings = {"tokenizer_class": "LlamaTokenizer", "unk_token": "<|pad|>", "legacy": False}
    (base / "tokenizer_config.json").write_text(json.dumps(settings))
    adapter = tiny_lora(tmp_path / "adapter")
    transformers.AutoTokenizer.from_pretrained(base).save_pretrained(adapter)
    assert (adapter / "tokenizer.json").read_text() != (base / "tokenizer.json").read_text()
    found = check(open_dir(adapter), fingerprint(open_checkpoint(base))).findings
    assert [one.code for one in found if one.code == "tokenization_differs"] == []


def test_another_spelling_of_the_same_steps_gives_no_finding(
    record: BaseRecord, trained: Path, tmp_path: Path
) -> None:
    adapter = with_tokenizer(tiny_lora(tmp_path / "adapter"), trained, spell_otherwise)
    assert check(open_dir(adapter), record).findings == ()


def test_an_older_record_says_that_the_tokenizer_was_not_compared(
    record: BaseRecord, trained: Path, tmp_path: Path
) -> None:
    older = record.model_copy(update={"tokenization": None})
    adapter = with_tokenizer(tiny_lora(tmp_path / "adapter"), trained, reverse_merges)
    (finding,) = check(open_dir(adapter), older).findings
    assert (finding.code, finding.severity) == ("tokenizer_not_compared", "notes")
    assert "adaptry base add DIR" in finding.remedy


def test_added_tokens_are_noted(found: Any, trained: Path) -> None:
    tokenizer = load(trained)
    tokenizer.add_tokens(["<think>", "</think>"])
    findings = found(tokenizer)
    assert {code: one.severity for code, one in findings.items()} == {"tokens_added": "notes"}
    assert "'<think>'" in findings["tokens_added"].reason


def test_added_tokens_need_rows(found: Any, trained: Path) -> None:
    tokenizer = load(trained)
    tokenizer.add_tokens([f"<{number}>" for number in range(VOCAB)])
    assert found(tokenizer)["tokens_without_rows"].severity == "warns"

    larger = {EMBEDDING: random_tensor((2 * VOCAB, 16), 9)}
    assert set(found(tokenizer, extra=larger)) == {"tokens_added", "vocabulary_resized"}


@pytest.mark.parametrize("place", ["chat_template.jinja", "tokenizer_config.json"])
def test_another_chat_template_warns_wherever_it_is(
    record: BaseRecord, trained: Path, tmp_path: Path, place: str
) -> None:
    adapter = tiny_lora(tmp_path / "adapter")
    for template, codes in ((TEMPLATE + "\n", []), (TEMPLATE + "!", ["chat_template_differs"])):
        is_json = place.endswith(".json")
        (adapter / place).write_text(json.dumps({"chat_template": template}) if is_json else template)
        assert [finding.code for finding in check(open_dir(adapter), record).findings] == codes


def test_a_malformed_tokenizer_gives_a_warning(record: BaseRecord, tmp_path: Path) -> None:
    adapter = tiny_lora(tmp_path / "adapter")
    for text in ("{", "[]", '{"model": {"vocab": {"a": "b"}}}', '{"model": {}}'):
        (adapter / "tokenizer.json").write_text(text)
        assert [one.code for one in check(open_dir(adapter), record).findings] == ["tokenizer_unreadable"]


def test_the_vocabulary_and_the_template_are_not_part_of_a_bases_id(
    record: BaseRecord, tmp_path: Path
) -> None:
    plain = fingerprint(open_checkpoint(tiny_base(tmp_path / "plain", vocab=VOCAB)))
    assert plain.id == record.id
    assert plain.vocabulary is None and plain.chat_template is None


def test_a_record_without_a_vocabulary_compares_nothing(trained: Path, tmp_path: Path) -> None:
    plain = fingerprint(open_checkpoint(tiny_base(tmp_path / "plain", vocab=VOCAB)))
    adapter = tiny_lora(tmp_path / "adapter")
    load(trained).save_pretrained(adapter)
    assert check(open_dir(adapter), plain).findings == ()
