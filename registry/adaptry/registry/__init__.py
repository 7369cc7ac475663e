"""The registry as an interface: its roles, the values that pass through it, and the HTTP client."""
