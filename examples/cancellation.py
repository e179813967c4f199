"""Stops an answer: by leaving the loop, by cancelling it, by a timeout."""

import asyncio

from talu import AsyncClient, Client

ENDLESS = {"stop_token_ids": [], "max_tokens": 900, "temperature": 0}

with Client("talu/pocket") as client:
    # Leave the loop. The model stops within a step, and the chat keeps the text so far.
    chat = client.chat()
    with chat("Tell me a story.", **ENDLESS) as response:
        for count, _ in enumerate(response, 1):
            if count == 10:
                break
    print(f"left after {count} pieces: {response.finish_reason}, {response.usage}")
    print(f"the chat keeps it as {chat.items.last.status.name.lower()}: {chat.items.last.text!r}\n")

    # Or cancel the answer, from any thread; the loop then ends.
    response = chat("Tell me another one.", **ENDLESS)
    for count, _ in enumerate(response, 1):
        if count == 10:
            response.cancel()
    print(f"asked to stop: {response.finish_reason}, {response.usage}\n")


async def main():
    async with AsyncClient("talu/pocket") as client:
        # Cancelling a task stops its generation, and so does this timeout.
        response = await client.chat()("Tell me a story.", **ENDLESS)
        try:
            async with asyncio.timeout(0.05):
                await response
        except TimeoutError:
            print(f"timed out: {response.finish_reason}, {response.usage}")
        print(f"the model is free: {await client.ask('What is 2+2?', temperature=0)}")


asyncio.run(main())
