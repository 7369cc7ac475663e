"""Code shared by all workers, in vLLM or next to an engine: reports, the state file, recalls, retries."""
