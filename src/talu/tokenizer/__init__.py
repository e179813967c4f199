"""Converts text to token ids and back, at once or token by token."""
