"""Connections to other processes: engines, trainers, programs that load adapters."""
