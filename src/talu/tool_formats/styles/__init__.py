"""Reads arguments of calls, one file for each way to write them, and gives them as JSON text."""
