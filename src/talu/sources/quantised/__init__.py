"""Reads the weights of quantised safetensors folders: MLX, GPTQ, AWQ, fp8, compressed-tensors."""
