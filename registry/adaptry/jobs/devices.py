"""Tests whether jobs on this machine can use the accelerators that a runner offers.

`python -m adaptry.jobs.devices DEVICE...` tries them in a process of its own: a runner that initialised CUDA
itself would hold memory of the GPU while it waits, and its forks could no longer use CUDA.
"""

from __future__ import annotations

import json
import subprocess
import sys
from collections.abc import Sequence

from adaptry.compute.tensors.usable_device import require_usable_device
from adaptry.compute.torch_requirement import require_torch
from adaptry.core.errors import AdaptryError, Invalid, MissingDependency, Unavailable

_TIMEOUT = 300.0  # seconds; the first use of a GPU may compile kernels


def require_devices(devices: Sequence[str]) -> None:
    """Raises `Invalid` or `MissingDependency`, with a remedy, unless torch can compute on each device."""
    others = [device for device in dict.fromkeys(devices) if device != "cpu"]
    if not others:
        return
    command = [sys.executable, "-P", "-m", "adaptry.jobs.devices", *others]
    try:
        tried = subprocess.run(command, stdout=subprocess.PIPE, timeout=_TIMEOUT, check=False)
    except subprocess.TimeoutExpired:
        raise Unavailable(f"{', '.join(others)} gave no answer within {_TIMEOUT:.0f} s") from None
    if tried.returncode != 0:
        raise Unavailable(
            f"trying {', '.join(others)} ended with exit code {tried.returncode}; see the output above"
        )
    failed = json.loads(tried.stdout)
    if failed is None:
        return
    device, code, message = failed
    if code == MissingDependency.code:
        raise MissingDependency(message)
    raise Invalid(
        f"{message}; every job that needs it would fail. Install the driver of the device and a torch that is"
        f" built for it, or start the runner without --device {device}"
    )


def main(devices: Sequence[str]) -> None:
    """Writes null, or the first device that cannot be used, with the code and message of the error."""
    failed = None
    for device in devices:
        try:
            require_torch(f"jobs on {device} need torch")
            require_usable_device(device)
        except AdaptryError as error:
            failed = (device, error.code, error.message)
            break
    sys.stdout.write(json.dumps(failed))


if __name__ == "__main__":
    main(sys.argv[1:])
