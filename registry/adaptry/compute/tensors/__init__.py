"""Arithmetic on weights. Only modules in this package and packages that use it import torch, numpy or
llvmlite.
"""
