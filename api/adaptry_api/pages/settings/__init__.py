"""Settings: who may do what, credentials, policies, webhooks and limits, each section a table and its forms.

A section reads one value and offers actions. Each action is one call of the registry with the visitor's
rights, as the command line makes it.
"""
