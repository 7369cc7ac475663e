"""Sending events to webhooks: messages, signatures, tries, and the sender's loop."""
