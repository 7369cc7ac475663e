"""The plugin for vLLM: a request for `acme/tone@prod` loads and checks that version, and follows the alias.

vLLM calls `register` in each of its processes (the entry point group `vllm.general_plugins`). Unless
ADAPTRY_URL names a registry and VLLM_ALLOW_RUNTIME_LORA_UPDATING allows resolvers, it does nothing, so that
installing Adaptry in an environment does not change vLLM. Importing this module imports neither vLLM nor
anything heavy.
"""

from __future__ import annotations

import logging
import os


def register() -> None:
    """Registers our resolver with vLLM. Idempotent. Raises `Invalid` for invalid settings, so that vLLM does
    not start.
    """
    if os.environ.get("ADAPTRY_URL") and os.environ.get("VLLM_USE_RUST_FRONTEND", "0").strip() == "1":
        logging.getLogger("vllm.adaptry").warning(
            "vLLM's Rust front end calls no resolvers, so this plugin serves nothing: run `adaptry follow`"
        )
        return
    allowed = os.environ.get("VLLM_ALLOW_RUNTIME_LORA_UPDATING", "0").strip().lower() in ("1", "true")
    if allowed and os.environ.get("ADAPTRY_URL"):
        from adaptry.integrations.serving.vllm.plugin import register_resolver

        register_resolver()
