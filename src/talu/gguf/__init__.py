"""Reads GGUF files: their metadata, their tensors, and how both map to those of a model folder."""
