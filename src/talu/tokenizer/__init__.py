"""Text to token ids and back, also piece by piece."""
