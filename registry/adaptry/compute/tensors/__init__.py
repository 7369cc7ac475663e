"""Arithmetic on weights. Only this package, and packages that use it, import torch, numpy or llvmlite."""
