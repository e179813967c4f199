"""Text that is continued as it is, with no chat template between you and the model."""

from talu import Client, CompletionOptions

with Client("talu/pocket") as client:
    # What a chat sends is a template around its messages. This is that text.
    chat = client.chat(messages=[{"role": "user", "content": "What is 2+2?"}])
    prompt = chat.preview_prompt()
    print(prompt)

    # Continuing it by hand gives the chat's answer.
    answer = client.raw_complete(prompt, temperature=0)
    print(f"{answer}  (same as ask: {answer == client.ask('What is 2+2?', temperature=0)})")

    # Its beginning can be prescribed, and the text can have the prompt in front.
    echoed = client.raw_complete(
        prompt + "2 + 2 =",
        completion_opts=CompletionOptions(echo_prompt=True),
        temperature=0,
    )
    print(echoed.text.removeprefix(prompt), f" ({len(echoed.tokens)} tokens of it sampled)")

    # Token ids in place of text: nothing is tokenized, and nothing is put in front.
    story = client.raw_complete("Once there was a fox", temperature=0, max_tokens=12)
    again = client.raw_complete(
        "",
        completion_opts=CompletionOptions(token_ids=story.tokens),
        temperature=0,
        max_tokens=6,
    )
    print(f"\n{again.usage.prompt_tokens} ids in, {len(again.tokens)} tokens out")

    # A stop sequence ends what has no end of its own.
    line = client.raw_complete(
        "1 + 1 = 2\n2 + 2 = 4\n3 + 3 =", stop_sequences=["\n"], temperature=0
    )
    print(f"3 + 3 ={line}  ({line.finish_reason})")
