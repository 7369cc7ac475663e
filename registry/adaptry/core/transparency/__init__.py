"""Transparency logs: Merkle trees (RFC 6962), Ed25519 (RFC 8032), and signed notes and checkpoints (C2SP)."""
