"""A conversation: one user turn, what a session keeps, what a response offers."""
