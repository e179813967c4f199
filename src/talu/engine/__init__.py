"""Runs a loaded model in a single thread for many concurrent sequences."""
