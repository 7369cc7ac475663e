"""Child processes for untrusted input, with limits on memory, time and number."""
