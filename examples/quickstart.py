"""Asks a question, streams a story, and holds three chats, with the model in the package."""

from talu import Client

with Client("talu/pocket") as client:
    # One question, without a history.
    answer = client.ask("What is 2+2?", temperature=0)
    print("What is 2+2?", "->", answer)

    # Read an answer while it is generated.
    print("\nTell me a story about a fox.", "->", end=" ")
    for piece in client.stream("Tell me a story about a fox.", seed=6):
        print(piece, end="", flush=True)

    # Two chats on one model: each has its own history.
    pirate = client.chat(system="You are a pirate.")
    poet = client.chat(system="You are a poet.")
    print("\n\nHello! -> pirate:", pirate.send("Hello!", temperature=0))
    print("Hello! -> poet:", poet.send("Hello!", temperature=0))

    # A follow-up continues from the answer that it is appended to.
    first = client.ask("What is the capital of France?", temperature=0)
    second = first.append("And of Italy?", temperature=0)
    print("\nWhat is the capital of France?", "->", first)
    print("And of Italy?", "->", second)

    usage, timings = second.usage, second.timings
    print(
        f"\nThe last answer: {usage.prompt_tokens} tokens in ({usage.cached_tokens} from the "
        f"cache), {usage.completion_tokens} tokens out, first token after "
        f"{timings.time_to_first_token_ms:.0f} ms, {timings.tokens_per_second:.0f} tokens/s"
    )
