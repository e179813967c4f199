"""A small web backend with one client; the functions also work with FastAPI."""

import asyncio
from contextlib import asynccontextmanager
from types import SimpleNamespace

from talu import AsyncClient, GenerationError


@asynccontextmanager
async def lifespan(app):
    async with AsyncClient("talu/pocket") as app.client:
        app.chats = {}
        yield


async def stream(app, question):
    try:  # awaited: a wrong question raises before anything is sent
        pieces = await app.client.stream(question, temperature=0)
    except GenerationError as error:
        return error.code
    return "".join([piece async for piece in pieces])


async def reply(app, user, message):
    chat = app.chats.setdefault(user, app.client.chat(system=f"You are a {user}."))
    async with await chat(message, temperature=0) as response:  # stops when the reader disconnects
        return "".join([piece async for piece in response])


async def main():
    app = SimpleNamespace()
    async with lifespan(app):  # concurrent requests run in one batch
        questions = [*(f"What is {n} + {n}?" for n in range(1, 9)), "word " * 3000]
        calls = [stream(app, question) for question in questions]
        calls += [reply(app, user, "Hello!") for user in ("pirate", "poet")]
        print(*await asyncio.gather(*calls), sep="\n")


asyncio.run(main())
