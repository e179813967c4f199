"""Reads answers while they are generated."""

from talu import Client

with Client("talu/pocket") as client:
    # Without a chat.
    for piece in client.stream("What is 2+2?", temperature=0):
        print(piece, end="", flush=True)
    print()

    # A chat streams when it is called. Each piece is a string with the id of its token.
    chat = client.chat(system="You are a pirate.")
    response = chat("Hello!", temperature=0, logprobs=True)
    for token in response:
        if token:
            print(f"{token.id:6} {token.logprob:8.3f}  {token!s}")
    print("last piece:", repr(token))

    # The usage is known when the stream has ended.
    print(f"{response.usage.completion_tokens} tokens, {response.finish_reason}, whole text:")
    print(response.text)

    # Leaving the loop early stops the generation; the text so far is kept.
    with chat("Tell me a story about a fox.", temperature=0) as story:
        for token in story:
            if "." in token:
                break
    print("left after the first sentence:", story.text)
    print(story.finish_reason, "- the chat keeps it as", chat.items.last.status.name.lower())

    # A callback gets the pieces of an answer that is returned as a whole.
    seen = []
    answer = chat.send("What is 3 plus 4?", temperature=0, on_token=seen.append)
    print(f"{len(seen)} pieces came by: {''.join(seen)}", "".join(seen) == answer)
