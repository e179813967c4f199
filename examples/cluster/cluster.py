"""Several replicas of one model behind one name; see README.md for the arguments."""

import sys

from talu import Client, ModelSpec, OpenAICompatibleBackend
from talu.router import Limits, Sticky

model, *urls = sys.argv[1:]
replicas = [
    ModelSpec(model, OpenAICompatibleBackend(url), name=url, limits=Limits(concurrency=8))
    for url in urls
]

with Client(replicas, policy=Sticky(name="cluster", hedge=True)) as cluster:
    # Each conversation has one replica, which keeps its beginning in the cache.
    for topic in ("Rome", "Paris", "Tokyo"):
        chat = cluster.chat(system="You answer in one short sentence.")
        first = chat.send(f"Name a river in {topic}.", max_tokens=20, temperature=0)
        second = chat.send("Name a bridge there.", max_tokens=20, temperature=0)
        print(f"{topic}: {first.model}, {second.model}; {second.usage.cached_tokens} tokens cached")

    # Many questions at once are spread over all replicas; one that fails is asked by another.
    questions = [f"Write a word that begins with {letter}." for letter in "ABCDEFGH"]
    answers = cluster.ask(questions, max_tokens=4, temperature=0)
    print(f"{len(answers)} answers from {len({answer.model for answer in answers})} replicas")

    for target in cluster.router.status().targets:
        print(
            f"{target.model}: {target.requests} requests, {target.failures} failed, first token "
            f"after {target.first_token_p50_ms or 0:.0f} ms, not asked for {target.cooling_s:.0f} s"
        )
