"""Whether torch can compute on a device of this machine."""

from __future__ import annotations

from adaptry.core.errors import Invalid


def require_usable_device(device: str) -> None:
    """Allocates one element on the device. Raises `Invalid`, with torch's reason, if that fails."""
    import torch

    try:
        torch.empty(1, device=device)
    except (RuntimeError, AssertionError, ImportError) as error:
        raise Invalid(f"torch cannot use the device {device!r} here: {_first_sentence(error)}") from error


def _first_sentence(error: Exception) -> str:
    """The first sentence of a torch error, which continues with a list of its build options."""
    return str(error).splitlines()[0].split(". ")[0][:200]
