"""Where an answer comes from: one file a kind of backend."""
