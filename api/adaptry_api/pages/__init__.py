"""Pages for people: server-rendered HTML over the same registry, with the visitor's rights.

A page is a function that gathers values from the registry; a template shows them. As JSON, the answer has the
same values. Pages run no inline script or style, load nothing from another host, and work without scripts.
"""
