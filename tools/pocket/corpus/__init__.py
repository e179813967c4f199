"""The conversations that `talu/pocket` learns from: every word of them is generated here.

One file to an idea; each has a `sample(rng)` that makes one conversation. `mixture.py` chooses
between them, `held_out.py` says which ones the model must never see.
"""
