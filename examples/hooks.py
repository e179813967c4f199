"""Observes generations with metrics, log lines, and a hook of your own."""

import logging
import sys

from talu import Client, GenerationError
from talu.hooks import Hook, LoggingHook, MetricsHook

logging.basicConfig(stream=sys.stdout, level=logging.INFO, format="log: %(message)s")


class Endings(Hook):
    """Every generation has one start and one end, whatever the outcome."""

    def on_generation_end(self, chat, response, *, error=None):
        print("ended:", error.code if error else f"{response.finish_reason} {response.text!r}")


metrics = MetricsHook()
with Client("talu/pocket", hooks=[metrics, LoggingHook(), Endings()]) as client:
    client.ask("What is 2+2?", temperature=0)
    client.raw_complete("Once upon a time", max_tokens=4, temperature=0)

    # A stream that is not read to its end is cancelled; one that fails has an error.
    with client.chat()("Tell me a story.") as response:
        next(iter(response))
    try:
        client.ask("word " * 2000)
    except GenerationError as error:
        print("failed:", error.code)

seen = metrics.snapshot()["talu/pocket"]
print(f"\n{seen.started} started, {seen.failed} failed, {seen.cancelled} cancelled")
print(f"{seen.prompt_tokens} tokens in, {seen.completion_tokens} out")
first = seen.time_to_first_token
print(f"first token after {first.sum / first.count * 1000:.1f} ms on average\n")
print("\n".join(metrics.prometheus().splitlines()[:6]))
