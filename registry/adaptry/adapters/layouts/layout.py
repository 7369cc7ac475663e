"""The functions that read one tool's adapters: its config in PEFT's terms, and its tensors as a `Spec`."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping

from adaptry.adapters.config import AdapterConfig
from adaptry.adapters.header import ReadAt, SafetensorsHeader, TensorInfo
from adaptry.adapters.spec import ModuleKind, ModuleSpec, Spec
from adaptry.core.lazy_dataclass import dataclass


@dataclass(frozen=True, slots=True)
class AdapterLayout:
    """`config` parses the config from its file's bytes (empty if the tool writes none) and the weights'
    header; it reads settings that are tensors from the weights' file. It raises `InvalidConfig` and
    `InvalidWeights`. `describe` derives the spec from config and header.
    """

    config: Callable[[bytes, SafetensorsHeader, ReadAt], AdapterConfig]
    describe: Callable[[AdapterConfig, SafetensorsHeader], Spec]


class ForeignTensors:
    """The tensors of another tool's file, classified: by module and role, shared, or unclaimed."""

    def __init__(self, tensors: Mapping[str, TensorInfo]) -> None:
        self.tensors = tensors
        self.modules: dict[str, dict[str, str]] = {}
        self.shared: dict[str, str] = {}
        self.unclaimed: list[str] = []

    def shapes(self, path: str) -> dict[str, tuple[int, ...]]:
        return {role: self.tensors[name].shape for role, name in self.modules[path].items()}

    def module(
        self,
        path: str,
        sides: tuple[int, int, int],
        scale: float = 1.0,
        kind: ModuleKind = "linear",
    ) -> ModuleSpec:
        """A module with these numbers: (rank, inputs, outputs)."""
        rank, fan_in, fan_out = sides
        return ModuleSpec(
            path=path,
            kind=kind,
            rank=rank,
            alpha=scale * rank,
            scale=scale,
            fan_in=fan_in,
            fan_out=fan_out,
            tensors=self.modules[path],
        )

    def spec(
        self,
        config: AdapterConfig,
        method: str,
        modules: Iterable[ModuleSpec],
        traits: Iterable[str],
        tokens: int | None = None,
    ) -> Spec:
        return Spec(
            method=method,
            modules=tuple(sorted(modules, key=lambda module: module.path)),
            shared=self.shared,
            virtual_tokens=tokens,
            unclaimed=tuple(sorted(self.unclaimed)),
            traits=tuple(sorted(set(traits))),
            dtypes=tuple(sorted({info.dtype for info in self.tensors.values()})),
            parameters=sum(info.numel for info in self.tensors.values()),
            size=sum(info.size for info in self.tensors.values()),
            base_name=config.base_name,
        )
