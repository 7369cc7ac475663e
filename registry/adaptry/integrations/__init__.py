"""Other people's processes: engines, trainers, programs that load adapters."""
