"""llama.cpp's own converter on a tiny base, with a vocabulary of words that mean nothing.

`llamacpp_base.py CONVERTER BASE GGUF`; CONVERTER is its script for adapters, beside the package that converts
bases.
"""

from __future__ import annotations

import sys
from pathlib import Path

sys.path.insert(0, str(Path(__file__).parents[2]))

from tests.runtimes.llamacpp_packages import use_packages_of

use_packages_of(sys.argv[1])

import gguf  # noqa: E402
import torch  # noqa: E402
from conversion import ModelBase, ModelType, get_model_architecture, get_model_class  # noqa: E402
from tests.exporting.llamacpp import add_vocabulary  # noqa: E402


def main(base: str, file: str) -> None:
    fields = ModelBase.load_hparams(Path(base), False)
    kind = get_model_class(get_model_architecture(fields, ModelType.TEXT))
    kind.set_vocab = lambda self: add_vocabulary(self.gguf_writer)
    with torch.inference_mode():
        kind(Path(base), gguf.LlamaFileType.ALL_F32, Path(file), eager=True).write()


main(*sys.argv[2:])
