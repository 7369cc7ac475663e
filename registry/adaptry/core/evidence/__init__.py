"""Parses results files of evaluation programs into evidence; no file is executed or changed."""
