"""Continues one history in several ways: appending to any answer, forking, regenerating."""

from talu import Client, GenerationConfig

with Client("talu/pocket") as client:
    chat = client.chat(config=GenerationConfig(temperature=0))
    france = chat.send("What is the capital of France?")
    italy = france.append("And of Italy?")
    print("the latest answer goes on in its chat:", italy.chat is chat)

    # Appending to an earlier answer makes a fork that ends with it. The chat stays as it is.
    spain = france.append("And of Spain?")
    print("an earlier one goes on in a fork:", spain.chat is not chat)
    for branch in (italy, spain):
        for message in branch.chat.messages:
            print(f"  {message['role']:9}  {message['content']}")
        print()

    # Fork the chat. All branches share the model, and the cache of their common prefix.
    fork = chat.fork()
    answer = fork.send("What is 2+2?")
    print(f"{answer}  (the fork has {len(fork)} items, the chat {len(chat)})")
    print(f"{answer.usage.cached_tokens} of {answer.usage.prompt_tokens} tokens from the cache")

    # Several answers to one message, each in its own fork.
    tries = [chat.fork().send("Tell me a story.", temperature=0.8, seed=n) for n in (1, 2, 3)]
    for story in tries:
        print(f"{len(story)} characters: {story.text[:50]} …")

    # Answer the last question again, or replace it with another one.
    print(f"\n{chat.regenerate('And of Germany?')}  (the chat has {len(chat)} items)")
