"""Counts tokens before they are sent, and shortens a conversation that outgrows the context."""

from talu import Client, GenerationConfig, GenerationError

ANSWER = 200  # tokens that are left for an answer

with Client("talu/pocket") as client:
    chat = client.chat(config=GenerationConfig(temperature=0, max_tokens=ANSWER))
    chat.system = "You are a pirate."
    limit = chat.max_context_length
    print(f"prompt and answer have {limit} tokens together")

    # Count a message before it is sent.
    print(f"the next prompt would have {chat.count_tokens('What is 2+2?')} tokens")

    # Nothing is cut silently: a prompt that does not fit is an error with the counts.
    try:
        chat.send("fox " * limit)
    except GenerationError as error:
        print(f"{error.code}: {error}")
    print(f"the failed turn left no trace: {len(chat)} item\n")

    # Drop the oldest turns if the next one would not fit.
    dropped = 0
    for number in range(1, 17):
        question = f"Tell me a story about a fox. What is {number} + {number}?"
        while chat.count_tokens(question) + ANSWER > limit:
            chat.remove(1).remove(1)  # the first question and its answer, after the system message
            dropped += 1
        answer = chat.send(question)
        total = answer.usage.total_tokens
        print(f"turn {number:2}: {total:4} of {limit} tokens, {dropped} dropped before")

    # Or keep the whole history, and start a new chat from the part that matters.
    recent = client.chat(messages=[chat.messages[0], *chat.messages[-4:]])
    print(f"\nthe last two turns alone: {recent.count_tokens()} tokens of {chat.count_tokens()}")
