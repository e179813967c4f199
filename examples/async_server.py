"""A web backend in miniature: one client for the process, a chat for each user, all at once.

With FastAPI it is the same code: ``FastAPI(lifespan=lifespan)``, ``@app.post`` above the handlers.
"""

import asyncio
from contextlib import asynccontextmanager
from types import SimpleNamespace

from talu import AsyncClient


@asynccontextmanager
async def lifespan(app):
    async with AsyncClient("talu/pocket") as app.client:
        app.chats = {}
        yield


async def ask(app, question):
    return await app.client.ask(question, temperature=0)


async def reply(app, user, message):
    chat = app.chats.setdefault(user, app.client.chat(system=f"You are a {user}."))
    async with await chat(message, temperature=0) as response:  # stops when the reader is gone
        return "".join([piece async for piece in response])


async def main():
    app = SimpleNamespace()
    async with lifespan(app):
        # Requests that are under way together run in one batch on the model.
        sums = await asyncio.gather(*(ask(app, f"What is {n} + {n}?") for n in range(1, 9)))
        async with asyncio.TaskGroup() as tasks:
            users = [tasks.create_task(reply(app, who, "Hello!")) for who in ("pirate", "poet")]
        print(*sums, *(user.result() for user in users), sep="\n")


asyncio.run(main())
