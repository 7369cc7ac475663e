"""Pins other projects' images by digest, in the Dockerfile and in compose.yaml: `python3 pin.py`, or `make
pin`.

For each `name:tag@sha256:…` it queries the image's registry for the tag's current digest, and writes that.
The digest is that of the index of all platforms. It needs a registry client: docker with buildx, skopeo or
crane.
"""

from __future__ import annotations

import argparse
import re
import shutil
import subprocess
import sys
from pathlib import Path

ROOT = Path(__file__).parents[2]
FILES = [ROOT / "Dockerfile", ROOT / "compose.yaml"]
_IMAGE = re.compile(r"(?m)^(ARG \w+=|\s+image: )([\w./-]+:[\w.-]+)(@sha256:[0-9a-f]{64})?$")
_DIGEST = re.compile(r"sha256:[0-9a-f]{64}")
_CLIENTS = {
    "docker": ["buildx", "imagetools", "inspect", "--format", "{{.Manifest.Digest}}"],
    "skopeo": ["inspect", "--no-tags", "--format", "{{.Digest}}"],
    "crane": ["digest"],
}
_PREFIXES = {"skopeo": "docker://"}


class Unresolved(Exception):
    """The digest of an image cannot be resolved; the message gives the reason."""


def resolve(image: str) -> str:
    """The digest of `name:tag` in its registry. Raises `Unresolved`."""
    client = next((name for name in _CLIENTS if shutil.which(name)), None)
    if client is None:
        raise Unresolved(f"none of {', '.join(_CLIENTS)} is installed; install one to query registries")
    done = subprocess.run(
        [client, *_CLIENTS[client], _PREFIXES.get(client, "") + image],
        capture_output=True,
        text=True,
        check=False,
    )
    digest = done.stdout.strip()
    if done.returncode or not _DIGEST.fullmatch(digest):
        reason = (done.stderr.strip() or digest or "no answer").splitlines()[-1]
        raise Unresolved(f"{client} cannot resolve {image}: {reason}")
    return digest


def main() -> int:
    arguments = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    arguments.add_argument("file", type=Path, nargs="*", default=FILES)
    files: list[Path] = arguments.parse_args().file
    texts = {path: path.read_text() for path in files}
    images = sorted({found[2] for text in texts.values() for found in _IMAGE.finditer(text)})
    try:
        digests = {image: resolve(image) for image in images}  # all of them before a file is written
    except Unresolved as error:
        print(f"{error}; nothing is changed", file=sys.stderr)
        return 1
    for path, text in texts.items():
        path.write_text(_IMAGE.sub(lambda found: f"{found[1]}{found[2]}@{digests[found[2]]}", text))
    for image, digest in digests.items():
        print(f"{image}@{digest}")
    return 0


if __name__ == "__main__":
    sys.exit(main())
