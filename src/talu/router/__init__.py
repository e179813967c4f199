"""Model references and what serves them."""
