"""Compiles LLVM IR for this machine.

It needs no compiler, only llvmlite, which includes LLVM.
"""

from __future__ import annotations

import ctypes
from collections.abc import Callable
from typing import Any

import llvmlite.binding as llvm


class CompiledModule:
    """LLVM IR compiled for this machine; its functions are safe to call from several threads."""

    def __init__(self, source: str) -> None:
        llvm.initialize_native_target()
        llvm.initialize_native_asmprinter()
        machine = llvm.Target.from_default_triple().create_target_machine(
            cpu=llvm.get_host_cpu_name(), features=llvm.get_host_cpu_features().flatten(), opt=2
        )
        module = llvm.parse_assembly(source)
        module.verify()
        self._engine = llvm.create_mcjit_compiler(module, machine)  # owns the code
        self._engine.finalize_object()

    def function(self, name: str, *arguments: type[Any]) -> Callable[..., None]:
        """The function with these ctypes arguments, which returns nothing. It releases the interpreter
        lock.
        """
        return ctypes.CFUNCTYPE(None, *arguments)(self._engine.get_function_address(name))


def has_cpu_feature(name: str) -> bool:
    """Whether this processor has the feature with this name in LLVM."""
    return bool(llvm.get_host_cpu_features().get(name))
