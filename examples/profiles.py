"""Stores chats, and finds, continues, forks and deletes them."""

import os
import tempfile

from talu import Client, Profile

# Profiles are in ~/.talu; this example uses another home, so yours is not changed.
home = tempfile.TemporaryDirectory()
os.environ["HOME"] = home.name

with Client("talu/pocket", profile=Profile("work")) as client:
    chat = client.chat(system="You are a pirate.", metadata={"user": "ada"})
    print("Hello! ->", chat.send("Hello!", temperature=0))
    chat.title = "A pirate"
    session_id = chat.session_id

# Later, in any process that has the id:
with Client("talu/pocket", profile=Profile("work")) as client:
    chat = client.chat(session_id=session_id)
    print("What is 2+2? ->", chat.send("What is 2+2?", temperature=0))
    print(len(chat.items), "items in", chat.title)

    # A fork shares the history so far, on the disk as well.
    fork = chat.fork()
    fork.append("user", "A note of mine.")

profile = Profile("work")
for session in profile.sessions(search="hello"):
    print(session["session_id"] == session_id, session["title"], session["search_snippet"])

profile.delete(session_id)
print(len(profile.sessions()), "session is left")
