"""Child processes for untrusted input: bounded in memory, time and number."""
