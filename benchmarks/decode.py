"""How fast one answer is written: tokens per second after the first."""

from rounds import main

if __name__ == "__main__":
    main("decode", 64, lambda peer, tokens, seed: peer.decode(tokens, seed))
