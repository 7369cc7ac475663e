"""Small quantised checkpoints, handwritten in the layout of bitsandbytes and transformers, without either.

The projections of a base are packed: `nf4` and `fp4` in blocks of 64 values, with scales in float32 or
quantised themselves, and `int8` with a scale per row. Other tensors are unchanged, as in those tools.
"""

from __future__ import annotations

import json
import struct
from collections.abc import Iterator, Sequence
from pathlib import Path

from adaptry.bases.hf_folder import HfCheckpoint, open_checkpoint
from adaptry.testing.samples import Tensors, write_safetensors

NF4 = (
    -1.0, -0.6961928009986877, -0.5250730514526367, -0.39491748809814453, -0.28444138169288635,
    -0.18477343022823334, -0.09105003625154495, 0.0, 0.07958029955625534, 0.16093020141124725,
    0.24611230194568634, 0.33791524171829224, 0.44070982933044434, 0.5626170039176941, 0.7229568362236023,
    1.0,
)  # fmt: skip
FP4 = tuple(sign * value / 12 for sign in (1, -1) for value in (0.0, 0.0625, 8.0, 12.0, 4.0, 6.0, 2.0, 3.0))
BLOCK = 64
_EVEN = tuple(
    place / 127.5 - 1 for place in range(256)
)  # bitsandbytes' own table is uneven; readers use the table in the file
_NAMES = {"F32": "float32", "F16": "float16", "BF16": "bfloat16"}

StoredTensor = tuple[str, tuple[int, ...], bytes]


def quantised_copy(source: Path, folder: Path, method: str = "nf4", *, nested: bool = False) -> Path:
    """Writes the base in `source`, with projections packed by `method` (nf4, fp4, int8), into `folder`;
    returns `folder`.
    """
    folder.mkdir(parents=True)
    checkpoint = open_checkpoint(source)
    tensors: dict[str, StoredTensor] = {}
    for name, info in checkpoint.tensors.items():
        data = _bytes_of(checkpoint, name)
        if not name.endswith("_proj.weight"):
            tensors[name] = (info.dtype, info.shape, data)
        elif method == "int8":
            tensors.update(_int8(name, info.shape, list(_floats(info.dtype, data))))
        else:
            table = NF4 if method == "nf4" else FP4
            state = {
                "quant_type": method,
                "blocksize": BLOCK,
                "dtype": _NAMES[info.dtype],
                "shape": info.shape,
            }
            packed = _four_bit(list(_floats(info.dtype, data)), table, state, nested)
            tensors.update({f"{name}{end}": stored for end, stored in packed.items()})
    write_safetensors(folder / "model.safetensors", tensors, {"format": "pt"})
    config = json.loads((source / "config.json").read_text())
    config["quantization_config"] = {"quant_method": "bitsandbytes", "load_in_8bit": method == "int8"}
    (folder / "config.json").write_text(json.dumps(config))
    return folder


def _four_bit(
    values: Sequence[float], table: Sequence[float], state: dict[str, object], nested: bool
) -> dict[str, StoredTensor]:
    codes: list[int] = []
    scales: list[float] = []
    for start in range(0, len(values), BLOCK):
        block = values[start : start + BLOCK]
        scales.append(max(map(abs, block)))
        codes += [_nearest(value / (scales[-1] or 1.0), table) for value in block]
    codes += [0] * (len(codes) % 2)
    packed = bytes(high << 4 | low for high, low in zip(codes[::2], codes[1::2], strict=True))
    tensors = {"": ("U8", (len(packed), 1), packed), ".quant_map": _f32(table)}
    if nested:
        offset = sum(scales) / len(scales)
        outer = max(abs(scale - offset) for scale in scales) or 1.0
        inner = bytes(_nearest((scale - offset) / outer, _EVEN) for scale in scales)
        tensors |= {".absmax": ("U8", (len(inner),), inner), ".nested_absmax": _f32([outer])}
        tensors[".nested_quant_map"] = _f32(_EVEN)
        state = {**state, "nested_blocksize": 256, "nested_dtype": "float32", "nested_offset": offset}
    else:
        tensors[".absmax"] = _f32(scales)
    text = json.dumps(state).encode()
    return tensors | {f".quant_state.bitsandbytes__{state['quant_type']}": ("U8", (len(text),), text)}


def _int8(name: str, shape: tuple[int, ...], values: Sequence[float]) -> Tensors:
    rows, columns = shape
    scales = [max(map(abs, values[row * columns : (row + 1) * columns])) for row in range(rows)]
    codes = [round(value * 127 / scales[place // columns]) for place, value in enumerate(values)]
    stem = name.removesuffix(".weight")
    return {
        name: ("I8", shape, struct.pack(f"<{len(codes)}b", *codes)),
        f"{stem}.SCB": _f32(scales),
        f"{stem}.weight_format": ("U8", (), b"\0"),
    }


def _nearest(value: float, table: Sequence[float]) -> int:
    return min(range(len(table)), key=lambda code: abs(table[code] - value))


def _f32(values: Sequence[float]) -> StoredTensor:
    return "F32", (len(values),), struct.pack(f"<{len(values)}f", *values)


def _floats(dtype: str, data: bytes) -> Iterator[float]:
    if dtype == "BF16":  # the upper half of a float32
        data, dtype = b"".join(b"\0\0" + data[at : at + 2] for at in range(0, len(data), 2)), "F32"
    return (value for (value,) in struct.iter_unpack({"F32": "<f", "F16": "<e"}[dtype], data))


def _bytes_of(checkpoint: HfCheckpoint, name: str) -> bytes:
    info = checkpoint.tensors[name]
    with checkpoint.path_of(name).open("rb") as file:
        file.seek(info.start)
        return file.read(info.size)
