"""Adapters of a registry in vLLM: a request for `acme/tone@prod` loads it, checked, and follows the alias.

vLLM calls `register` in each of its processes (the entry point group `vllm.general_plugins`). It does nothing
unless ADAPTRY_URL names a registry and VLLM_ALLOW_RUNTIME_LORA_UPDATING lets vLLM ask resolvers at all, so
that an environment with Adaptry in it stays as it was. Importing this imports neither vLLM nor anything
heavy.
"""

from __future__ import annotations

import logging
import os


def register() -> None:
    """Makes our resolver one of vLLM's; again is no error. Raises `Invalid` for settings that make no sense:
    then vLLM does not start.
    """
    if os.environ.get("ADAPTRY_URL") and os.environ.get("VLLM_USE_RUST_FRONTEND", "0").strip() == "1":
        logging.getLogger("vllm.adaptry").warning(
            "vLLM's Rust front end asks no resolver, so this plugin serves nothing: run `adaptry follow`"
        )
        return
    allowed = os.environ.get("VLLM_ALLOW_RUNTIME_LORA_UPDATING", "0").strip().lower() in ("1", "true")
    if allowed and os.environ.get("ADAPTRY_URL"):
        from adaptry.integrations.serving.vllm.plugin import register_resolver

        register_resolver()
