"""Runs one flow in the environment of a client: `python run.py LINE WORLD`, WORLD being JSON.

Its last line on stdout is JSON: `{"cannot": …}` if the client does not support the line, else null. A flow
that fails ends with a traceback and exit code 1.
"""

from __future__ import annotations

import importlib
import json
import os
import sys
from pathlib import Path
from typing import Any

MODULES = {
    "hub": (
        "permissions",
        "folder_uploads",
        "commits",
        "listings",
        "references",
        "downloads",
        "settings",
        "broken_connections",
        "uploads",
    ),
    "command": ("command",),
    "peft": ("peft_library",),
    "diffusers": ("diffusers_library",),
}  # fmt: skip


def main(family: str, number: int, told: dict[str, Any]) -> None:
    if told.pop("proxy", None):
        from wire import Proxy

        proxy = Proxy(told["endpoint"])
        os.environ["HF_ENDPOINT"] = proxy.url  # set before the client is imported, since it reads them then
    import world

    for module in MODULES[family]:
        importlib.import_module(module)
    here = world.World(
        told["endpoint"],
        told["tokens"],
        Path(told["folders"]),
        Path(told["scratch"]),
        told["prefix"],
        tuple(told["adaptry"]),
    )
    try:
        world.FLOWS[number](here)
    except world.ClientCannot as reason:
        print(json.dumps({"cannot": str(reason)}))
    else:
        print("null")


if __name__ == "__main__":
    main(sys.argv[1], int(sys.argv[2]), json.loads(sys.argv[3]))
