"""Ranks sentences by how close they are in meaning to a question.

The model in the package is made for chats and knows few words; use an encoder for real work:
python examples/embeddings.py sentence-transformers/all-MiniLM-L6-v2
"""

import sys

from talu import Client

SENTENCES = [
    "What is 2+2?",
    "Tell me a short story about a fox.",
    "What is the capital of France?",
    "What is 3 + 9?",
    "What is the capital of Spain?",
    "Tell me a story about a brave rabbit.",
]
QUESTION = "What is the capital of Italy?"

with Client(sys.argv[1] if len(sys.argv) > 1 else "talu/pocket") as client:
    print(f"{client.default_model}: vectors of {client.embedding_dim()} numbers")

    # All sentences run together; vectors of length 1, so that a dot product is the cosine.
    vectors = client.embed_batch(SENTENCES, pooling="mean")
    asked = client.embed(QUESTION, pooling="mean")

    scores = [sum(a * b for a, b in zip(asked, vector, strict=True)) for vector in vectors]
    print(QUESTION)
    for score, sentence in sorted(zip(scores, SENTENCES, strict=True), reverse=True):
        print(f"  {score:.3f}  {sentence}")
