"""Views in, results out: everything that computes on weights. torch begins here."""
