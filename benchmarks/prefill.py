"""How fast a prompt is read: its tokens per second until the first token of the answer."""

from rounds import main

if __name__ == "__main__":
    main("prefill", 512, lambda peer, tokens, seed: peer.prefill(tokens, seed))
