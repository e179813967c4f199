"""Holds a conversation with a system message, a history and default settings."""

from talu import Client, GenerationConfig

with Client("talu/pocket") as client:
    chat = client.chat(system="You are a pirate.", config=GenerationConfig(temperature=0))
    for message in ("Hello!", "What is the capital of France?", "And of Italy?"):
        print(f"> {message}\n{chat.send(message)}")

    # The history is a read-only view of typed items; the system message is the first of them.
    print()
    for item in chat.items:
        print(f"{item.role.name.lower():10} {item.status.name.lower():10} {item.text[:40]}")

    # The second turn computed only its new tokens.
    usage = chat.last_response.usage
    print(f"\n{usage.cached_tokens} of {usage.prompt_tokens} prompt tokens were in the cache")

    # The system message can change at any time, and a message can be answered again.
    chat.system = "You are a poet."
    print("\n> And of Italy?   (as a poet)\n" + str(chat.regenerate()))

    # Messages can be added without an answer, and a chat can start from any history.
    chat.clear().append("user", "What is 2+2?").append("assistant", "2 + 2 = 4.")
    print("\n> And 3 plus 4?   (after an edited history)\n" + str(chat.send("And 3 plus 4?")))

    other = client.chat(messages=chat.messages)
    print(f"\nthe same history elsewhere: {other.messages == chat.messages}")
