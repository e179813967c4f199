"""Continues texts without a chat template."""

from talu import Client, CompletionOptions

with Client("talu/pocket") as client:
    # A chat sends its messages within a template. This is the resulting text.
    chat = client.chat(messages=[{"role": "user", "content": "What is 2+2?"}])
    prompt = chat.preview_prompt()
    print(prompt)

    # Continuing that text gives the chat's answer.
    answer = client.raw_complete(prompt, temperature=0)
    print(f"{answer}  (same as ask: {answer == client.ask('What is 2+2?', temperature=0)})")

    # The answer can continue a given beginning, and its text can include the prompt.
    echoed = client.raw_complete(
        prompt + "2 + 2 =",
        completion_opts=CompletionOptions(echo_prompt=True),
        temperature=0,
    )
    print(echoed.text.removeprefix(prompt), f" ({len(echoed.tokens)} tokens of it sampled)")

    # Token ids instead of text: nothing is tokenized, and no token is added.
    story = client.raw_complete("Once there was a fox", temperature=0, max_tokens=12)
    again = client.raw_complete(
        "",
        completion_opts=CompletionOptions(token_ids=story.tokens),
        temperature=0,
        max_tokens=6,
    )
    print(f"\n{again.usage.prompt_tokens} ids in, {len(again.tokens)} tokens out")

    # A stop sequence ends a text that would not end by itself.
    line = client.raw_complete(
        "1 + 1 = 2\n2 + 2 = 4\n3 + 3 =", stop_sequences=["\n"], temperature=0
    )
    print(f"3 + 3 ={line}  ({line.finish_reason})")
