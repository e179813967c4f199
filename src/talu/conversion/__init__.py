"""Converts models to the file formats of other programs."""
