"""Sends events to webhooks: messages, signatures, retries, and the sender's loop."""
