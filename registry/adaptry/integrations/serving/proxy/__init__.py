"""A reverse proxy before an engine: public names that move between loaded versions without a gap.

Engines such as vLLM cannot give a name to another version while requests are under way with the old one. So
each version is loaded under a name with its digest, and the proxy puts that name in place of the public one.
"""
