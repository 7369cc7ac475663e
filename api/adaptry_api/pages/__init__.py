"""Pages for people: server-rendered HTML over the same registry, with the rights of the person who looks.

A page is a function that gathers values from the registry; a template shows them. The same values are the
answer as JSON. Pages run no inline script or style, load nothing from another host, and work without scripts.
"""
