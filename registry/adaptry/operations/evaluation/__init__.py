"""Evaluates a version with lm-evaluation-harness."""
