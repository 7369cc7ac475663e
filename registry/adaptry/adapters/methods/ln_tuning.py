"""LN tuning: norm layers trained whole, replacing the base's (arXiv 2312.11420; PEFT `tuners/ln_tuning`).

PEFT leaves merged norms in float32 in a model of half precision; here they take the base's dtype. A BatchNorm
is saved with its running statistics, which go with it.
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
