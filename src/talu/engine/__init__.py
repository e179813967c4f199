"""Runs a loaded model: one thread, many sequences."""
