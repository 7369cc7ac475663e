"""How adapters compare, in numbers: a result with its parents, two adapters with each other, one with many.

Everything is computed from factors, site by site; no base is loaded. `results` are the answers as values,
free of torch; what computes them (`combine_report`, `distance`, `similarity`) is imported by whoever asks.
"""
