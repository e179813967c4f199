"""Asks one question, and shows the attributes of the answer."""

import math

from talu import Client, GenerationConfig

exact = GenerationConfig(temperature=0, max_tokens=60)

with Client("talu/pocket") as client:
    answer = client.ask("What is 7 times 8?", config=exact)
    print(answer)  # an answer is a str
    print(f"  {answer.model}, ended by {answer.finish_reason}")
    print(f"  {answer.usage.prompt_tokens} tokens in, {answer.usage.completion_tokens} out")
    print(f"  first token after {answer.timings.time_to_first_token_ms:.0f} ms")

    # A keyword overrides the config, for this call only.
    cut = client.ask("Tell me a story about a fox.", config=exact, max_tokens=5)
    print(f"\n{cut} …\n  ended by {cut.finish_reason}")

    # A stop sequence ends the answer and is not part of it.
    first = client.ask("Tell me a story about a fox.", config=exact, stop_sequences=["."])
    print(f"\n{first}\n  ended by {first.finish_reason} at {first.stop_sequence!r}")

    # The same seed gives the same tokens, whatever else the model is doing.
    one, two = (client.ask("Tell me a story.", seed=7, max_tokens=30) for _ in range(2))
    print(f"\nsame seed, same tokens: {one.tokens == two.tokens}")

    # The probability of each token, and the second most likely token.
    sure = client.ask("What is the capital of France?", config=exact, top_logprobs=2)
    print("\ntoken        probability  second")
    for entry in sure.logprobs:
        second = entry.top_logprobs[1][1]
        print(f"{entry.token_str!r:12} {math.exp(entry.logprob):11.3f}  {second!r}")
