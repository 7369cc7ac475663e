"""Type errors that an editor reports before the program runs."""

import adaptry

registry = adaptry.connect()
adaptry.push(registry, "out")  # the name is missing
adaptry.push(registry, "out", "acme/tone", metric={"accuracy": 0.91})  # it is called metrics
adaptry.push(registry, "out", "acme/tone", metrics={"accuracy": "high"})  # a number
adaptry.merge("acme/tone", base="./base", kernel="fast")  # there is no such kernel
adaptry.search(registry).labels  # noqa: B018  (there is no such attribute)
