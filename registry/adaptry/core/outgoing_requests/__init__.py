"""The server's own requests to addresses that others chose, within limits."""
