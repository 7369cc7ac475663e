"""Requests that the server itself sends to addresses that somebody else chose, within limits."""
