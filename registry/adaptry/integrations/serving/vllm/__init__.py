"""The plugin for vLLM: a request for `acme/tone@prod` loads and checks that version, and follows the alias.

vLLM calls `register` in each of its processes (the entry point group `vllm.general_plugins`). Unless
ADAPTRY_URL names a registry and VLLM_ALLOW_RUNTIME_LORA_UPDATING allows resolvers, it does nothing, so that
installing Adaptry in an environment does not change vLLM. Importing this module imports neither vLLM nor
other large packages.
"""

from __future__ import annotations

import logging
import os


def register() -> None:
    """Registers our resolver with vLLM, or logs why it is not called. Idempotent. Raises `Invalid` for
    invalid settings, so that vLLM does not start.
    """
    if not os.environ.get("ADAPTRY_URL"):
        return
    log = logging.getLogger("vllm.adaptry")
    if os.environ.get("VLLM_USE_RUST_FRONTEND", "0").strip() == "1":
        log.warning(
            "vLLM's Rust front end calls no resolvers, so this plugin serves nothing: run `adaptry follow`"
        )
    elif os.environ.get("VLLM_ALLOW_RUNTIME_LORA_UPDATING", "0").strip().lower() not in ("1", "true"):
        log.warning(
            "ADAPTRY_URL is set, but vLLM may not load adapters while it runs, so this plugin serves nothing:"
            " set VLLM_ALLOW_RUNTIME_LORA_UPDATING=True and start one API server (--api-server-count 1)"
        )
    else:
        from adaptry.integrations.serving.vllm.plugin import register_resolver

        register_resolver()
