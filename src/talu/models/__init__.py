"""Model families, one file each, and the list of them."""
