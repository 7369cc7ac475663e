"""Code shared by all workers, in vLLM or beside an engine: reports, the state file, recalls, retries."""
