"""A reverse proxy in front of an engine: public names move between loaded versions without a gap.

Engines such as vLLM cannot give a name to another version while requests with the old one are running. So
each version is loaded under a name with its digest, and the proxy replaces the public name by that name.
"""
