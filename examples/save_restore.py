"""Saves a chat to a JSON file and restores it without loss."""

import json
import tempfile
from pathlib import Path

from talu import Chat, Client, GenerationConfig

file = Path(tempfile.mkdtemp()) / "chat.json"

with Client("talu/pocket") as client:
    chat = client.chat(
        system="You are a pirate.",
        config=GenerationConfig(temperature=0, max_tokens=60),
        metadata={"user": "ada"},
    )
    chat.send("What is the capital of France?")
    file.write_text(json.dumps(chat.to_dict(), indent=2))
    print("stored:", *json.loads(file.read_text()))

# In another process, with any client:
with Client("talu/pocket") as client:
    restored = Chat.from_dict(json.loads(file.read_text()), client=client)
    print("items the same:", list(restored.items) == list(chat.items))
    print("settings the same:", restored.config == chat.config)
    print("And of Italy? ->", restored.send("And of Italy?"))

    # The conversation alone, in the format of OpenAI's API:
    for message in restored.messages:
        print(" ", json.dumps(message))
    again = client.chat(messages=restored.messages)
    print("messages the same:", again.messages == restored.messages)

# Without a client, a chat can be read and edited, but not continued.
print(Chat.from_dict(json.loads(file.read_text())).items)
