"""Compares adapters in numbers: a result with its parents, two adapters with each other, one with many.

Everything is computed from factors, site by site, without loading a base. `results` are the results as
values, without torch. Callers import the modules that compute them (`combine_report`, `distance`,
`similarity`).
"""
