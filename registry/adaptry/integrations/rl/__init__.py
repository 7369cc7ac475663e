"""Reinforcement learning with a registry: publish the policy often, keep a window of versions, drain.

engines = [Vllm(EngineClient(url))]
publisher = Publisher(registry, "acme/policy", window=4, engines=engines, cache=Cache(folder))
published = publisher.publish(model, step=10, metrics={"reward": 0.3})
publisher.drain()              # waits until no engine serves an older version
sample(model=published.model)  # the model name to request
"""

from adaptry.integrations.rl.publisher import Publisher, PublishResult

__all__ = ["PublishResult", "Publisher"]
