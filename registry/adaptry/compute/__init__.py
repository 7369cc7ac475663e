"""Everything that computes on weights, from views to results. Imports of torch begin here."""
