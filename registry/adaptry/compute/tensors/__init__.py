"""Arithmetic on weights. Heavy imports (torch, numpy, llvmlite) begin below here and nowhere above."""
