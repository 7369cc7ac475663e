"""The states that a version can be in. `lifecycle` defines what each allows."""

from __future__ import annotations

from typing import Literal

State = Literal["active", "deprecated", "yanked", "quarantined", "revoked"]
