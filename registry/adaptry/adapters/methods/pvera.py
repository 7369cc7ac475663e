"""PVeRA: a VeRA that learns a distribution; a merge uses its mean (PEFT `tuners/pvera`)."""

from __future__ import annotations

from adaptry.adapters.methods.vera import vera

METHOD = vera("pvera", "PVeRA", rows_per_rank=2)
