"""What every worker shares, in vLLM or beside an engine: its report, its state file, recalls, retries."""
