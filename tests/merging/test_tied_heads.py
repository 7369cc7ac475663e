"""Heads and embeddings stored as one tensor: a merge that changes only one of them writes both separately.

Each result is loaded by transformers and compared with the live adapter's output.
"""

from __future__ import annotations

import importlib
import json
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest

from adaptry import open_dir
from adaptry.adapters.tensor_names import INPUT_EMBEDDINGS
from adaptry.bases.fingerprinting import fingerprint
from adaptry.bases.hf_folder import HfCheckpoint, open_checkpoint
from adaptry.checks import check
from adaptry.compute.merging.merge import MergeSource, merge
from adaptry.compute.merging.tied_names import find_tied_names
from adaptry.compute.merging.weighted_adapter import WeightedAdapter
from adaptry.compute.recipes.merge import MergeRecipe, RecipeInput
from adaptry.core.errors import Unsupported

torch = pytest.importorskip("torch")
peft = pytest.importorskip("peft")
transformers = pytest.importorskip("transformers")

from safetensors.torch import load_file, save_file  # noqa: E402  (needs torch)

ENCODER = {
    "hidden_size": 32, "intermediate_size": 48, "num_hidden_layers": 1, "num_attention_heads": 2,
    "vocab_size": 96, "max_position_embeddings": 40, "pad_token_id": 1,
}  # fmt: skip
BART = {
    "d_model": 32, "encoder_layers": 1, "decoder_layers": 1, "encoder_attention_heads": 2,
    "decoder_attention_heads": 2, "encoder_ffn_dim": 48, "decoder_ffn_dim": 48, "vocab_size": 96,
    "pad_token_id": 1, "bos_token_id": 0, "eos_token_id": 2, "decoder_start_token_id": 2,
    "scale_embedding": True,
}  # fmt: skip
T5 = {
    "d_model": 32, "d_kv": 8, "d_ff": 48, "num_layers": 1, "num_heads": 4, "vocab_size": 96,
    "decoder_start_token_id": 0,
}  # fmt: skip
IDS = torch.tensor([[5, 7, 9, 11, 2]])


def _of(kind: str, model: str, **config: Any) -> Callable[[], Any]:
    """(`Any`: transformers is not typed.)"""
    return lambda: getattr(transformers, model)(getattr(transformers, f"{kind}Config")(**config))


MODELS: dict[str, Callable[[], Any]] = {
    "bert": _of("Bert", "BertForMaskedLM", **ENCODER),
    "bert pretraining": _of("Bert", "BertForPreTraining", **ENCODER),
    "roberta": _of("Roberta", "RobertaForMaskedLM", **ENCODER),
    "camembert": _of("Camembert", "CamembertForMaskedLM", **ENCODER),
    "xlm-roberta": _of("XLMRoberta", "XLMRobertaForMaskedLM", **ENCODER),
    "mpnet": _of("MPNet", "MPNetForMaskedLM", **ENCODER),
    "esm": _of("Esm", "EsmForMaskedLM", **ENCODER, mask_token_id=4),
    "albert": _of("Albert", "AlbertForMaskedLM", **ENCODER, embedding_size=16),
    "electra": _of("Electra", "ElectraForMaskedLM", **ENCODER, embedding_size=16),
    "deberta": _of("Deberta", "DebertaForMaskedLM", **ENCODER),
    "deberta-v2": _of("DebertaV2", "DebertaV2ForMaskedLM", **ENCODER),
    "distilbert": _of(
        "DistilBert", "DistilBertForMaskedLM", dim=32, hidden_dim=48, n_layers=1, n_heads=2, vocab_size=96),
    "modernbert": _of(
        "ModernBert", "ModernBertForMaskedLM", **ENCODER, bos_token_id=0, eos_token_id=2, cls_token_id=0,
        sep_token_id=2),
    "xlnet": _of("XLNet", "XLNetLMHeadModel", d_model=32, n_layer=1, n_head=2, d_inner=48, vocab_size=96),
    "modernbert-decoder": _of(
        "ModernBertDecoder", "ModernBertDecoderForCausalLM", **ENCODER, bos_token_id=0, eos_token_id=2,
        cls_token_id=0, sep_token_id=2),
    "megatron-bert": _of("MegatronBert", "MegatronBertForMaskedLM", **ENCODER),
    "bert-generation": _of("BertGeneration", "BertGenerationDecoder", **ENCODER, is_decoder=True),
    "xmod": _of(
        "Xmod", "XmodForMaskedLM", **ENCODER, languages=("en_XX",), default_language="en_XX"),
    "biogpt": _of("BioGpt", "BioGptForCausalLM", **ENCODER),
    "gpt_neox_japanese": _of(
        "GPTNeoXJapanese", "GPTNeoXJapaneseForCausalLM", **ENCODER, tie_word_embeddings=True),
    "mamba": _of(
        "Mamba", "MambaForCausalLM", hidden_size=32, num_hidden_layers=1, state_size=4, vocab_size=96),
    "xlm": _of(
        "XLM", "XLMWithLMHeadModel", emb_dim=32, n_layers=1, n_heads=2, n_words=96,
        max_position_embeddings=40, pad_index=1),
    "gpt2": _of("GPT2", "GPT2LMHeadModel", n_embd=32, n_layer=1, n_head=2, vocab_size=96, n_positions=40),
    "ctrl": _of(
        "CTRL", "CTRLLMHeadModel", n_embd=32, n_layer=1, n_head=2, dff=48, vocab_size=96, n_positions=40),
    "whisper": _of(
        "Whisper", "WhisperForConditionalGeneration", **BART, num_mel_bins=8, max_source_positions=20,
        max_target_positions=20),
    "bart": _of("Bart", "BartForConditionalGeneration", **BART),
    "mbart": _of("MBart", "MBartForConditionalGeneration", **BART),
    "pegasus": _of("Pegasus", "PegasusForConditionalGeneration", **BART),
    "m2m_100": _of("M2M100", "M2M100ForConditionalGeneration", **BART),
    "t5": _of("T5", "T5ForConditionalGeneration", **T5),
    "mt5": _of("MT5", "MT5ForConditionalGeneration", **T5, tie_word_embeddings=True),
}  # fmt: skip

SEVERAL = {"bart", "mbart", "pegasus", "m2m_100", "t5", "mt5"}
"""Models with embeddings of other names beside that of the head."""


class Case:
    """A base made from one of the models, and a LoRA of its embedding, its head, or both."""

    def __init__(self, folder: Path, name: str) -> None:
        self.base, self.adapter, self.target = folder / "base", folder / "tone", folder / "merged"
        torch.manual_seed(0)
        model = MODELS[name]()
        with torch.no_grad():
            for parameter in model.parameters():
                parameter += torch.randn(parameter.shape) * 0.05
        model.save_pretrained(self.base)
        self.kind = type(model)
        ends = {id(part): path for path, part in model.named_modules()}
        self.head = ends[id(model.get_output_embeddings())]
        self.embedding = ends[id(model.get_input_embeddings())]

    def train(self, targets: list[str], saves_ends: bool = False, **fields: Any) -> None:
        config = peft.LoraConfig(r=4, lora_alpha=6, target_modules=targets, **fields)
        self.train_by(config, saves_ends)

    def train_by(self, config: Any, saves_ends: bool = False) -> None:
        adapted = peft.get_peft_model(self.kind.from_pretrained(self.base), config)
        torch.manual_seed(1)
        with torch.no_grad():
            for parameter in adapted.parameters():
                if parameter.requires_grad:
                    parameter += torch.randn(parameter.shape) * 0.1
        adapted.save_pretrained(self.adapter, save_embedding_layers=saves_ends)

    def merged(self) -> Any:
        """The result as transformers loads it, which must find every weight. (`Any`: as above.)"""
        source = MergeSource(WeightedAdapter(open_dir(self.adapter), 1.0, "tone"))
        recipe = MergeRecipe(base="base", inputs=(RecipeInput(source="tone"),))
        merge(recipe, open_checkpoint(self.base), [source], self.target)
        model, found = self.kind.from_pretrained(self.target, output_loading_info=True)
        assert not found["missing_keys"]
        assert not found["unexpected_keys"]
        return model

    def live(self) -> Any:
        return peft.PeftModel.from_pretrained(self.kind.from_pretrained(self.base), self.adapter)


def answers(model: Any) -> Any:
    """(`Any`: a tensor.)"""
    model.eval()
    inputs: dict[str, Any] = {"input_ids": IDS}
    if model.config.model_type == "whisper":
        inputs = {"input_features": torch.linspace(-1, 1, 320).view(1, 8, 40), "decoder_input_ids": IDS}
    elif model.config.is_encoder_decoder:
        inputs["decoder_input_ids"] = IDS
    with torch.no_grad():
        found = model(**inputs)
    return found["prediction_logits"] if "prediction_logits" in found else found["logits"]


@pytest.mark.parametrize("name", MODELS)
def test_a_head_that_is_changed_alone_is_written_under_its_own_name(name: str, tmp_path: Path) -> None:
    case = Case(tmp_path, name)
    case.train([case.head])

    merged, live = case.merged(), case.live()

    assert not torch.allclose(answers(live), answers(case.kind.from_pretrained(case.base)), atol=1e-2)
    torch.testing.assert_close(answers(merged), answers(live), rtol=1e-4, atol=1e-5)


@pytest.mark.parametrize("name", [name for name in MODELS if name not in SEVERAL])
def test_an_embedding_that_is_changed_alone_leaves_the_head_as_it_was(name: str, tmp_path: Path) -> None:
    case = Case(tmp_path, name)
    case.train([case.embedding])

    merged, live = case.merged(), case.live()

    assert not torch.allclose(answers(live), answers(case.kind.from_pretrained(case.base)), atol=1e-3)
    torch.testing.assert_close(answers(merged), answers(live), rtol=1e-4, atol=1e-5)


@pytest.mark.parametrize("side", ["encoder", "decoder"])
@pytest.mark.parametrize("name", ["bart", "m2m_100"])
def test_the_embedding_of_one_stack_is_changed_alone(name: str, side: str, tmp_path: Path) -> None:
    case = Case(tmp_path, name)
    case.train([f"model.{side}.embed_tokens", "q_proj"])

    merged, live = case.merged(), case.live()

    torch.testing.assert_close(answers(merged), answers(live), rtol=1e-4, atol=1e-5)


@pytest.mark.parametrize("name", ["bert", "bart"])
def test_a_fully_trained_head_replaces_only_the_head(name: str, tmp_path: Path) -> None:
    case = Case(tmp_path, name)
    case.train(["query" if name == "bert" else "q_proj"], modules_to_save=[case.head])

    torch.testing.assert_close(answers(case.merged()), answers(case.live()), rtol=1e-4, atol=1e-5)


@pytest.mark.parametrize("name", ["gpt2", "whisper", "t5", "without a LoRA"])
def test_rows_of_a_head_alone_change_only_the_head(name: str, tmp_path: Path) -> None:
    """PEFT ties the rows of embedding and head only if the embedding's are trained."""
    targets = {"gpt2": "c_attn", "whisper": "q_proj", "t5": "q"}
    case = Case(tmp_path, name if name in targets else "gpt2")
    if name in targets:
        case.train([targets[name]], trainable_token_indices={case.head: [5, 9]})
    else:
        case.train_by(peft.TrainableTokensConfig(token_indices=[5, 9], target_modules=[case.head]))
    found = check(open_dir(case.adapter), fingerprint(open_checkpoint(case.base))).findings

    assert [finding.code for finding in found] == ["tied_embeddings"]
    torch.testing.assert_close(answers(case.merged()), answers(case.live()), rtol=1e-4, atol=1e-5)


def test_a_head_that_is_stored_although_tied_is_untied(tmp_path: Path) -> None:
    case = Case(tmp_path, "bert")
    tensors = load_file(case.base / "model.safetensors")
    tensors[f"{case.head}.weight"] = tensors[f"{case.embedding}.weight"].clone()
    save_file(tensors, case.base / "model.safetensors", metadata={"format": "pt"})
    case.train([case.head])

    merged = case.merged()

    assert merged.config.tie_word_embeddings is False
    torch.testing.assert_close(answers(merged), answers(case.live()), rtol=1e-4, atol=1e-5)


def test_a_t5_of_an_older_config_still_scales_before_its_head(tmp_path: Path) -> None:
    """transformers treated an untied T5 as one that does not scale; since version 5, scaling has its own
    field.
    """
    case = Case(tmp_path, "t5")
    config = json.loads((case.base / "config.json").read_text())
    del config["scale_decoder_outputs"]
    (case.base / "config.json").write_text(json.dumps(config))
    case.train(["lm_head"])

    torch.testing.assert_close(answers(case.merged()), answers(case.live()), rtol=1e-4, atol=1e-5)


def test_a_bias_tied_to_the_heads_is_trained_with_it(tmp_path: Path) -> None:
    case = Case(tmp_path, "bert")
    case.train([case.head, "query"], bias="all")

    torch.testing.assert_close(answers(case.merged()), answers(case.live()), rtol=1e-4, atol=1e-5)
    written = load_file(case.target / "model.safetensors")
    assert torch.equal(written["cls.predictions.decoder.bias"], written["cls.predictions.bias"])


def test_an_update_that_would_change_a_tied_bias_is_refused(tmp_path: Path) -> None:
    case = Case(tmp_path, "bert")
    live = peft.get_peft_model(
        case.kind.from_pretrained(case.base), peft.RoadConfig(target_modules=[case.head], group_size=8)
    )
    torch.nn.init.normal_(next(part for part in live.parameters() if part.requires_grad))
    live.save_pretrained(case.adapter)

    with pytest.raises(Unsupported, match=r"also changes the bias of cls\.predictions\.decoder"):
        case.merged()


def test_a_shared_embedding_by_its_own_name_is_refused(tmp_path: Path) -> None:
    case = Case(tmp_path, "bart")
    case.train(["model.shared", "q_proj"])

    with pytest.raises(Unsupported, match=r"only the embedding model\.shared, which models of type bart tie"):
        case.merged()
    assert not case.target.exists()


@pytest.mark.parametrize("end", ["lm_head", "wte", "rows"])
def test_a_stored_separate_head_counts_regardless_of_the_config(end: str, tmp_path: Path) -> None:
    case = Case(tmp_path, "gpt2")
    tensors = load_file(case.base / "model.safetensors")
    tensors["lm_head.weight"] = torch.randn(96, 32)
    save_file(tensors, case.base / "model.safetensors", metadata={"format": "pt"})
    if end == "rows":
        case.train(["c_attn"], trainable_token_indices=[1, 5])
    else:
        case.train([end], saves_ends=True)

    torch.testing.assert_close(answers(case.merged()), answers(case.live()), rtol=1e-4, atol=1e-5)


def test_an_embedding_that_may_be_tied_to_a_head_is_refused_where_the_model_is_not_known(
    tmp_path: Path,
) -> None:
    case = Case(tmp_path, "ctrl")
    case.train(["transformer.w"])
    config = json.loads((case.base / "config.json").read_text())
    (case.base / "config.json").write_text(json.dumps({**config, "model_type": "own"}))

    with pytest.raises(Unsupported, match="how a own ties one is unknown here"):
        case.merged()


@pytest.mark.heavy
def test_heads_of_transformers_models_get_their_own_names() -> None:
    wrong = []
    for kind in _models():
        tied = kind._tied_weights_keys
        heads = [name for name, source in tied.items() if source.split(".")[-2] in INPUT_EMBEDDINGS]
        own = [name.removesuffix(".weight") for name in heads if "embed" not in name.split(".")[-2]]
        config = {
            "model_type": kind.config_class.model_type,
            "architectures": [kind.__name__],
            "is_encoder_decoder": getattr(kind.config_class, "is_encoder_decoder", False),
        }
        found = find_tied_names(HfCheckpoint(Path(), config, {}, {}, {}, {})).head
        if own and found is not None and found not in own:
            wrong.append(f"{kind.__name__}: {found}, and it is {own}")
    assert wrong == []


def _models() -> Iterator[Any]:
    """Every class of transformers that generates text and ties its head. (`Any`: as above.)"""
    for file in sorted(Path(transformers.models.__path__[0]).glob("*/modeling_*.py")):
        try:
            module = importlib.import_module(f"transformers.models.{file.parent.name}.{file.stem}")
        except ImportError:
            continue
        for kind in vars(module).values():
            is_own = isinstance(kind, type) and kind.__module__ == module.__name__
            if is_own and isinstance(getattr(kind, "_tied_weights_keys", None), dict) and _writes(kind):
                yield kind


def _writes(kind: Any) -> bool:
    endings = (
        "ForCausalLM",
        "LMHeadModel",
        "ForMaskedLM",
        "ForConditionalGeneration",
        "ForPreTraining",
        "Decoder",
    )
    return kind.__name__.endswith(endings) and kind.config_class is not None


def test_a_head_whose_name_is_not_known_is_refused(tmp_path: Path) -> None:
    case = Case(tmp_path, "bert")
    case.train([case.head])
    config = json.loads((case.base / "config.json").read_text())
    (case.base / "config.json").write_text(json.dumps({**config, "model_type": "fnet"}))

    with pytest.raises(Unsupported, match="untied is unknown here"):
        case.merged()
