"""The operations that a model file may use, and what runs them."""
