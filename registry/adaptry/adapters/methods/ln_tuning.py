"""LN tuning: fully trained norm layers that replace the base's (arXiv 2312.11420; PEFT `tuners/ln_tuning`).

In a half-precision model, PEFT leaves merged norms in float32; here they get the base's dtype. A BatchNorm is
saved, and merged, with its running statistics.
"""

from __future__ import annotations

from adaptry.adapters.methods.method import Method, ModuleSize

_PARAMETERS = "weight|bias|running_mean|running_var|num_batches_tracked"

METHOD = Method(
    name="ln_tuning",
    title="LN tuning",
    key_patterns={},
    replaced={rf"(?P<path>.+?)\.ln_tuning_layers\.(?P<parameter>{_PARAMETERS})": "norm"},
    module_size=lambda shapes, config: ModuleSize(0, 0, 0),
    tolerance="bit-equal in the base's dtype",
)
