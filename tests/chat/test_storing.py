"""Chats of a client with a profile: what is stored, when, and how it is restored."""

import asyncio
import json

import pytest
from tests.threads import in_threads

from talu import AsyncClient, Client, ModelSpec, Profile
from talu.backends.scripted import ScriptedModel
from talu.chat import Chat, FunctionCallItem, Hook, ItemStatus, MessageItem, ReasoningItem
from talu.config import GenerationConfig
from talu.exceptions import GenerationError, StateError, StorageError, ValidationError
from talu.types import ReasoningDelta, ToolCallEvent

pytestmark = pytest.mark.usefixtures("home")


@pytest.fixture
def profile(profile_of) -> Profile:
    return profile_of("work")


def stored(profile: Profile, session_id: str) -> list[tuple[str, str]]:
    """The stored items: role or type, and text."""
    session = profile.database.load(session_id)
    return [
        (item.get("role", item["type"]), "".join(p["text"] for p in item.get("content", ())))
        for item in (session.items if session else [])
    ]


def fill(profile: Profile, pages: int | None) -> None:
    """Limit the database to this many pages, as on a full disk; None removes the limit."""
    with profile.database.file.reading() as db:
        db.execute(f"PRAGMA max_page_count = {pages or 2**30}")


def test_a_chat_is_restored_by_its_session_id(profile_of, faces, profile) -> None:
    chat = faces.client("Hello there", profile=profile).chat(system="Be kind.")
    faces.run(chat.send("Hi", temperature=0.5, seed=3))
    again = faces.client("more", profile=profile_of("work")).chat(session_id=chat.session_id)
    assert list(again.items) == list(chat.items)
    assert again.system == "Be kind."
    assert faces.run(again.send("And?")).text == "more"
    assert [text for _, text in stored(profile, chat.session_id)] == [
        "Be kind.",
        "Hi",
        "Hello there",
        "And?",
        "more",
    ]


def test_every_type_of_item_is_restored(faces, profile) -> None:
    script = [ReasoningDelta("hm"), "Zoë \ud800 \x00 🦊", ToolCallEvent("c1", "add", '{"a": 1}')]
    chat = faces.client(script, profile=profile).chat()
    faces.run(chat.send("Hi", logit_bias={5: 1.5}, stop_sequences=["x"], seed=2**64 - 1))
    chat.append_hidden("user", "secret")
    again = faces.client("", profile=profile).chat(session_id=chat.session_id)
    assert list(again.items) == list(chat.items)
    kinds = [type(item) for item in again.items]
    assert kinds == [MessageItem, ReasoningItem, MessageItem, FunctionCallItem, MessageItem]
    assert again.items[2].generation["config"]["logit_bias"] == {5: 1.5}
    assert again.items[-1].hidden


def test_every_attribute_is_restored(faces, profile) -> None:
    client = faces.client("", profile=profile)
    chat = client.chat(
        system="S",
        config=GenerationConfig(temperature=0.1, logit_bias={7: -100.0}),
        parent_session_id="older",
        marker="pinned",
        metadata={"user": {"id": 7}},
        chat_template="{{ messages }}",
    )
    chat.title = "A title"
    again = faces.client("", profile=profile).chat(session_id=chat.session_id)
    assert again.config == chat.config
    assert again.title == "A title"
    for name in ("session_id", "parent_session_id", "marker", "metadata", "chat_template", "model"):
        assert getattr(again, name) == getattr(chat, name), name
    (session,) = profile.sessions()
    assert session["system_prompt"] == "S"
    assert session["created_at_ms"] <= session["updated_at_ms"]


def test_the_stored_system_message_is_kept_and_other_arguments_override_stored_ones(faces, profile):
    client = faces.client("", profile=profile)
    chat = client.chat(system="old", marker="pinned", config=GenerationConfig(top_k=3, seed=1))
    with pytest.warns(UserWarning, match="keeps its stored system message"):
        again = client.chat(
            session_id=chat.session_id,
            system="new",
            marker="archived",
            config=GenerationConfig(seed=2),
        )
    assert again.system == "old"
    assert again.config == GenerationConfig(top_k=3, seed=2)
    assert profile.sessions()[0]["marker"] == "archived"


def test_reading_a_session_changes_nothing_in_it(faces, profile) -> None:
    client = faces.client("a", profile=profile)
    chat = client.chat(system="S", config=GenerationConfig(seed=1), metadata={"a": 1})
    before = profile.database.load(chat.session_id)
    client.chat(session_id=chat.session_id)
    assert profile.database.load(chat.session_id) == before


def test_a_chat_in_which_nothing_was_set_or_said_is_not_stored_and_gets_an_id(
    faces, profile, home
) -> None:
    chat = faces.client(profile=profile).chat(config=GenerationConfig(seed=1))
    assert len(chat.session_id) == 36
    chat.title, chat.marker, chat.metadata = None, "", {}
    chat.fork()
    faces.run(chat.close())
    assert not (home / ".talu").exists()


@pytest.mark.parametrize(
    ("name", "value"), [("title", "T"), ("title", ""), ("marker", "pinned"), ("metadata", {"a": 1})]
)
def test_an_attribute_set_in_a_chat_without_items_is_stored_at_once(faces, profile, name, value):
    client = faces.client("answer", profile=profile)
    chat = client.chat(config=GenerationConfig(seed=1))
    setattr(chat, name, value)
    (session,) = profile.sessions()
    assert (session[name], session["config"]) == (value, {"seed": 1})
    faces.run(chat.close())
    again = client.chat(session_id=chat.session_id)
    assert (getattr(again, name), len(again)) == (value, 0)
    faces.run(again.send("q"))
    assert len(stored(profile, chat.session_id)) == 2


def test_a_chat_without_items_is_listed_found_exported_and_deleted(
    profile_of, faces, profile, tmp_path
):
    chat = faces.client(profile=profile).chat(metadata={"user": "ada"})
    chat.title = "still empty"
    assert [each["session_id"] for each in profile.sessions(search="empty")] == [chat.session_id]
    assert profile.export(tmp_path / "all.jsonl") == 1
    other = profile_of("other")
    assert other.import_(tmp_path / "all.jsonl") == 1
    assert other.database.first_question(chat.session_id) is None
    (session,) = other.sessions()
    assert (session["title"], session["metadata"]) == ("still empty", {"user": "ada"})
    profile.delete(chat.session_id)
    assert profile.sessions() == []


def test_without_a_profile_nothing_is_written(faces, home) -> None:
    client = faces.client("a", "b", "c")
    faces.run(client.chat(session_id="s", system="S").send("q"))
    faces.run(client.ask("q"))
    assert list(home.iterdir()) == []


def test_questions_without_a_chat_are_not_stored(faces, home, profile) -> None:
    client = faces.client("a", "b", "c", profile=profile)
    faces.run(client.ask("q"))
    faces.read(client.stream("q"))
    faces.run(client.raw_complete("q"))
    assert list(home.iterdir()) == []


def test_the_question_is_stored_before_the_generation_and_the_answer_when_it_ends(faces, profile):
    seen = []
    chat = faces.client(
        [lambda: seen.append(stored(profile, "s")), "answer"], profile=profile
    ).chat(session_id="s")
    stream = faces.run(chat("question"))
    assert stored(profile, "s") == [("user", "question")]
    faces.read(stream)
    assert seen == [[("user", "question")]]
    assert stored(profile, "s") == [("user", "question"), ("assistant", "answer")]


def test_a_cancelled_answer_is_stored_as_incomplete(faces, profile) -> None:
    chat = faces.client("one two three", profile=profile).chat(session_id="s")
    stream = faces.run(chat("q"))
    faces.read_some(stream, 1)
    faces.run(stream.close())
    again = faces.client("", profile=profile).chat(session_id="s")
    assert list(again.items) == list(chat.items)
    assert again.items.last.status is ItemStatus.INCOMPLETE


@pytest.mark.parametrize("script", [[GenerationError("x")], ["par", GenerationError("x")]])
def test_a_turn_that_fails_leaves_the_store_as_it_was(faces, profile, script) -> None:
    chat = faces.client("fine", script, profile=profile).chat(session_id="s")
    faces.run(chat.send("one"))
    before = stored(profile, "s")
    with pytest.raises(GenerationError):
        faces.run(chat.send("two"))
    assert stored(profile, "s") == before


def test_a_request_that_the_backend_refuses_leaves_the_store_as_it_was(faces, profile) -> None:
    chat = faces.client(profile=profile).chat(session_id="s")
    with pytest.raises(GenerationError, match="this is one more"):
        faces.run(chat("q"))
    assert stored(profile, "s") == []


def test_a_stream_that_is_closed_unread_leaves_the_store_as_it_was(faces, profile) -> None:
    chat = faces.client("fine", "never", profile=profile).chat(session_id="s")
    faces.run(chat.send("one"))
    before = stored(profile, "s")
    stream = faces.run(chat("two"))
    assert len(stored(profile, "s")) == 3
    faces.run(stream.close())
    assert stored(profile, "s") == before


def test_regenerate_keeps_the_old_answer_stored_until_the_new_one_is_complete(
    faces, profile
) -> None:
    seen = []
    look = lambda: seen.append([text for _, text in stored(profile, "s")])  # noqa: E731
    chat = faces.client("old", [look, "new"], [look, "other"], profile=profile).chat(session_id="s")
    faces.run(chat.send("q"))
    faces.run(chat.regenerate())
    faces.run(chat.regenerate("p"))
    assert seen == [["q", "old"], ["q", "new", "p"]]
    assert stored(profile, "s") == [("user", "p"), ("assistant", "other")]


def test_every_edit_is_stored_at_once(items_left, faces, profile) -> None:
    chat = faces.client(profile=profile).chat(session_id="s", system="S")
    edits = [
        lambda: chat.append("user", "a").append("assistant", "b"),
        lambda: chat.insert(1, "user", "first"),
        lambda: chat.remove(2),
        lambda: chat.pop(),
        lambda: setattr(chat, "system", "T"),
        lambda: chat.append("user", "z").clear(),
        lambda: chat.reset(),
    ]
    for edit in edits:
        edit()
        restored = faces.client(profile=profile).chat(session_id="s")
        assert list(restored.items) == list(chat.items)
    assert items_left(profile) == 0


def test_setting_an_attribute_or_metadata_stores_it_and_a_changed_setting_is_stored_by_close(
    faces, profile
) -> None:
    chat = faces.client(profile=profile).chat(session_id="s", system="S")
    chat.marker = "pinned"
    chat.config = GenerationConfig(seed=1)
    chat.metadata = {"a": 1}
    record = profile.database.load("s").record
    assert (record["marker"], record["config"], record["metadata"]) == (
        "pinned",
        {"seed": 1},
        {"a": 1},
    )
    chat.metadata["b"] = 2
    assert profile.database.load("s").record["metadata"] == {"a": 1, "b": 2}
    del chat.metadata["a"]
    assert profile.database.load("s").record["metadata"] == {"b": 2}
    chat.config.top_k = 5
    faces.run(chat.close())
    record = profile.database.load("s").record
    assert (record["config"], record["metadata"]) == ({"seed": 1, "top_k": 5}, {"b": 2})


def test_an_attribute_set_during_a_generation_does_not_affect_the_question(faces, profile):
    chat = faces.client("a b", profile=profile).chat(session_id="s")
    stream = faces.run(chat("q"))
    chat.title = "t"
    assert stored(profile, "s") == [("user", "q")]
    faces.read(stream)
    assert len(stored(profile, "s")) == 2


def test_a_fork_is_stored_at_once_and_shares_the_history(items_left, faces, profile) -> None:
    client = faces.client("a", "b", "c", profile=profile)
    chat = client.chat(session_id="s", marker="pinned", metadata={"k": 1})
    faces.run(chat.send("1"))
    faces.run(chat.send("2"))
    fork = chat.fork()
    restored = client.chat(session_id=fork.session_id)
    assert list(restored.items) == list(chat.items)
    assert (restored.parent_session_id, restored.marker, restored.metadata) == ("s", "", {"k": 1})
    assert items_left(profile) == 4
    faces.run(fork.send("3"))
    assert len(stored(profile, "s")) == 4
    assert len(stored(profile, fork.session_id)) == 6


def test_appending_to_an_older_answer_stores_a_fork_that_ends_with_it(
    items_left, faces, profile
) -> None:
    chat = faces.client("a", "b", "c", profile=profile).chat(session_id="s")
    first = faces.run(chat.send("1"))
    faces.run(chat.send("2"))
    other = faces.run(first.append("3"))
    texts = [text for _, text in stored(profile, other.chat.session_id)]
    assert texts == ["1", "a", "3", "c"]
    assert [text for _, text in stored(profile, "s")] == ["1", "a", "2", "b"]
    assert items_left(profile) == 6


def test_a_fork_outlives_its_parent(faces, profile) -> None:
    client = faces.client("a", "b", profile=profile)
    chat = client.chat(session_id="s")
    faces.run(chat.send("1"))
    fork = chat.fork()
    profile.delete("s")
    faces.run(fork.send("2"))
    assert [t for _, t in stored(profile, fork.session_id)] == ["1", "a", "2", "b"]


def test_a_chat_whose_session_was_deleted_says_so_and_can_be_forked(faces, profile) -> None:
    chat = faces.client("a", "b", "c", profile=profile).chat(session_id="s")
    faces.run(chat.send("1"))
    profile.delete("s")
    with pytest.raises(StorageError, match="was deleted") as caught:
        faces.run(chat.send("2"))
    assert caught.value.code == "STORAGE_CONFLICT"
    assert profile.sessions() == []
    fork = chat.fork()
    assert [text for _, text in stored(profile, fork.session_id)] == ["1", "a"]


def test_an_outdated_chat_does_not_overwrite_changes_of_others(profile_of, faces, profile) -> None:
    client = faces.client("a", "b", "c", profile=profile)
    one = client.chat(session_id="s", system="S")
    other = faces.client("x", profile=profile_of("work")).chat(session_id="s")
    faces.run(other.send("theirs"))
    before = stored(profile, "s")
    for change in (lambda: faces.run(one.send("mine")), lambda: one.append("user", "mine")):
        with pytest.raises(StorageError, match="was changed by another chat or process"):
            change()
    assert stored(profile, "s") == before
    assert len(one.items) == 1  # its items in memory are unchanged, too
    assert faces.run(client.chat(session_id="s").send("mine")).text == "a"


@pytest.mark.parametrize(
    "ask",
    [
        lambda chat: chat.send("more"),
        lambda chat: chat("more"),
        lambda chat: chat.last_response.append("more"),
        lambda chat: chat.regenerate(),
        lambda chat: chat.regenerate(stream=True),
        lambda chat: chat.regenerate("question"),
        lambda chat: chat.regenerate("other"),
    ],
    ids=["send", "stream", "append", "again", "again_stream", "same", "other"],
)
def test_an_outdated_chat_does_not_generate_and_is_unchanged(
    profile_of, faces, profile, ask
) -> None:
    model = ScriptedModel("a", "b")
    chat = faces.client_of(model, profile=profile).chat(session_id="s")
    answer = faces.run(chat.send("question"))
    faces.client(profile=profile_of("work")).chat(session_id="s").append("user", "theirs")
    before = list(chat.items), stored(profile, "s")
    with pytest.raises(StorageError) as caught:
        faces.run(ask(chat))
    assert caught.value.code == "STORAGE_CONFLICT"
    assert (list(chat.items), stored(profile, "s")) == before
    assert chat.last_response is answer
    assert len(model.requests) == 1


@pytest.mark.parametrize(
    "ask", [lambda chat: chat("more"), lambda chat: chat.regenerate(stream=True)]
)
def test_the_first_of_two_concurrent_turns_is_stored(profile_of, faces, profile, ask) -> None:
    chat = faces.client("a", "first", profile=profile).chat(session_id="s")
    faces.run(chat.send("question"))
    model = ScriptedModel("second")
    other = faces.client_of(model, profile=profile_of("work")).chat(session_id="s")
    stream = faces.run(ask(chat))
    with pytest.raises(StorageError, match="was changed by another"):
        faces.run(other.send("late"))
    assert model.requests == []
    faces.read(stream)
    assert stored(profile, "s")[-1] == ("assistant", "first")


def test_a_change_during_a_turn_is_detected_at_its_end_and_the_answer_is_available(
    profile_of, faces, profile
) -> None:
    def write() -> None:
        faces.client(profile=profile_of("work")).chat(session_id="s").append("user", "theirs")

    chat = faces.client([write, "mine"], profile=profile).chat(session_id="s")
    with pytest.raises(StorageError) as caught:
        faces.run(chat.send("question"))
    assert caught.value.code == "STORAGE_CONFLICT"
    assert caught.value.details["response"] is chat.last_response
    assert chat.items.last.text == "mine"
    assert stored(profile, "s") == [("user", "question"), ("user", "theirs")]


def test_hooks_see_one_start_and_one_end_of_a_turn_that_cannot_be_stored(faces, profile) -> None:
    seen = []

    class Watch(Hook):
        def on_generation_start(self, chat, input_text, *, config=None) -> None:
            seen.append(input_text)

        def on_generation_end(self, chat, response, *, error=None) -> None:
            seen.append(type(error))

    chat = faces.client("a", profile=profile, hooks=[Watch()]).chat(session_id="s", system="S")
    profile.delete("s")
    with pytest.raises(StorageError):
        faces.run(chat.send("q"))
    assert seen == ["q", StorageError]


def test_two_new_chats_with_the_same_id_do_not_mix(faces, profile) -> None:
    client = faces.client(profile=profile)
    one, other = client.chat(session_id="s"), client.chat(session_id="s")
    one.append("user", "one")
    with pytest.raises(StorageError, match="was changed by another"):
        other.append("user", "other")


def test_with_a_full_disk_the_answer_is_available_and_nothing_earlier_is_lost(
    faces, profile
) -> None:
    client = faces.client("first", "word " * 20_000, "third", profile=profile)
    chat = client.chat(session_id="s")
    faces.run(chat.send("1"))
    fill(profile, 20)
    with pytest.raises(StorageError, match=r"talu\.db: database or disk is full; free") as caught:
        faces.run(chat.send("2"))
    answer = caught.value.details["response"]
    assert answer is chat.last_response
    assert answer.text == chat.items.last.text == "word " * 20_000
    assert stored(profile, "s")[:2] == [("user", "1"), ("assistant", "first")]
    fill(profile, None)
    faces.run(chat.send("3"))
    restored = faces.client(profile=profile).chat(session_id="s")
    assert list(restored.items) == list(chat.items)
    assert len(restored.items) == 6


def test_a_disk_that_is_full_before_the_question_lets_a_stream_be_read_to_its_end(faces, profile):
    chat = faces.client("one two", profile=profile).chat(session_id="s", system="S")
    fill(profile, 1)
    stream = faces.run(chat("word " * 20_000))
    pieces = []

    def read() -> None:
        pieces.extend(stream)

    async def read_async() -> None:
        async for piece in stream:
            pieces.append(piece)

    with pytest.raises(StorageError, match="disk is full"):
        faces.run(read_async()) if faces.name == "async" else read()
    assert pieces == ["one", " two", ""]
    assert stored(profile, "s") == [("system", "S")]


def test_an_edit_that_cannot_be_stored_is_rolled_back(faces, profile) -> None:
    chat = faces.client(profile=profile).chat(session_id="s", system="S")
    fill(profile, 1)
    with pytest.raises(StorageError, match="disk is full"):
        chat.append("user", "word " * 20_000)
    assert len(chat.items) == 1


def test_messages_for_a_stored_session_are_refused(faces, profile) -> None:
    client = faces.client(profile=profile)
    client.chat(session_id="s", messages=[{"role": "user", "content": "q"}])
    with pytest.raises(ValidationError, match="has a history: messages= would replace it"):
        client.chat(session_id="s", messages=[])


@pytest.mark.parametrize("wrong", ["", 3, "a\nb", "x" * 201, "\ud800"])
def test_a_session_id_is_printable_text(faces, profile, wrong) -> None:
    with pytest.raises(ValidationError, match="session_id must be printable text"):
        faces.client(profile=profile).chat(session_id=wrong)


def test_a_value_that_json_cannot_hold_is_refused_before_the_generation(faces, profile) -> None:
    model = ScriptedModel("a")
    chat = faces.client_of(model, profile=profile).chat(session_id="s")
    with pytest.raises(ValidationError, match="config must be plain JSON"):
        faces.run(chat.send("q", extra_context={"x": object()}))
    assert model.requests == []


def test_a_damaged_item_is_named(faces, profile) -> None:
    client = faces.client(profile=profile)
    client.chat(session_id="s", system="S")
    with profile.database.file.writing() as db:
        db.execute("""UPDATE nodes SET item = '{"type": "poem"}'""")
    with pytest.raises(
        StorageError, match="session 's' is damaged: item 0 is not a record"
    ) as caught:
        client.chat(session_id="s")
    assert caught.value.code == "STORAGE_DAMAGED"


def test_a_session_continues_with_its_model_if_the_client_has_it(faces, profile) -> None:
    models = [ScriptedModel("a", model="one"), ScriptedModel("b", model="two")]
    client = faces.client_of(*models, profile=profile)
    client.chat(session_id="s", system="S", model="two")
    assert client.chat(session_id="s").model == "two"
    assert client.chat(session_id="s", model="one").model == "one"
    with pytest.warns(UserWarning, match="with the model 'two', .* with 'scripted'") as warned:
        assert faces.client(profile=profile).chat(session_id="s").model == "scripted"
    assert [warning.filename for warning in warned] == [__file__]


def test_a_chat_with_its_own_model_warns_that_the_stored_model_is_another_one(profile) -> None:
    Client(ModelSpec("m", ScriptedModel()), profile=profile).chat(session_id="s", system="S")
    own = ModelSpec("n", ScriptedModel("a"))
    with pytest.warns(UserWarning, match="with the model 'm', .* with 'n'") as warned:
        chat = Chat(own, profile=profile, session_id="s")
    assert [warning.filename for warning in warned] == [__file__]
    chat.send("q")
    assert profile.sessions()[0]["model"] == "n"
    Chat(own, profile=profile, session_id="s")  # without a warning


def test_a_restored_chat_is_a_dictionary_that_went_through_json(faces, profile) -> None:
    chat = faces.client("a", profile=profile).chat(config=GenerationConfig(logit_bias={3: 1.0}))
    faces.run(chat.send("q"))
    again = type(chat).from_dict(json.loads(json.dumps(chat.to_dict())))
    assert again.config == chat.config
    assert list(again.items) == list(chat.items)


def test_threads_store_separate_chats_in_one_profile(profile) -> None:
    client = Client(ModelSpec("m", ScriptedModel(*["a b c"] * 80)), profile=profile)
    chats = [client.chat(session_id=f"s{i}") for i in range(8)]

    def talk(chat) -> None:
        for number in range(10):
            chat.send(f"{chat.session_id} {number}")

    in_threads(talk, chats)
    for chat in chats:
        assert len(chat.items) == 20
        again = client.chat(session_id=chat.session_id)
        assert list(again.items) == list(chat.items)


class Begun(Hook):
    """Signals that a turn is about to be stored."""

    def __init__(self) -> None:
        self.event = asyncio.Event()

    def on_generation_start(self, chat, input_text, *, config=None) -> None:
        self.event.set()


def test_a_lock_on_the_database_does_not_block_the_event_loop(profile_of, profile) -> None:
    async def main() -> int:
        begun, model = Begun(), ModelSpec("m", ScriptedModel("a"))
        async with AsyncClient(model, profile=profile, hooks=[begun]) as client:
            await client.router.abackend()  # open the model, so that storing is the next step
            chat = client.chat(session_id="s", system="S")
            with profile_of("work").database.file.writing():
                sending = asyncio.create_task(chat.send("q"))
                await begun.event.wait()
                for _ in range(20):  # iterations of the loop while the write waits for the lock
                    await asyncio.sleep(0)
                assert not sending.done()
            await sending
            return len(chat.items)

    assert asyncio.run(main()) == 3


def test_a_task_cancelled_while_storing_ends_after_the_store_is_rolled_back(
    profile_of, profile
) -> None:
    async def main() -> None:
        begun, model = Begun(), ModelSpec("m", ScriptedModel("a", "b"))
        async with AsyncClient(model, profile=profile, hooks=[begun]) as client:
            await client.router.abackend()  # open the model, so that storing is the next step
            chat = client.chat(session_id="s", system="S")
            with profile_of("work").database.file.writing():
                sending = asyncio.create_task(chat.send("q"))
                await begun.event.wait()
                sending.cancel()
                for _ in range(20):
                    await asyncio.sleep(0)
                assert not sending.done()
            with pytest.raises(asyncio.CancelledError):
                await sending
            assert stored(profile, "s") == [("system", "S")]
            assert (await chat.send("again")).text == "a"

    asyncio.run(main())


def test_a_loop_left_inside_a_with_block_stores_the_text_so_far(profile, caplog) -> None:
    async def main() -> None:
        model = ScriptedModel(*["one two three"] * 20)
        async with AsyncClient(ModelSpec("m", model), profile=profile) as client:
            for number in range(20):
                chat = client.chat(session_id=str(number))
                async with await chat("q") as stream:
                    async for _ in stream:
                        break
                assert stored(profile, str(number)) == [("user", "q"), ("assistant", "one")]
                assert model.active == 0

    asyncio.run(main())
    assert caplog.records == []


def test_a_closed_chat_is_refused_as_without_a_profile(faces, profile) -> None:
    chat = faces.client(profile=profile).chat(session_id="s", system="S")
    faces.run(chat.close())
    faces.run(chat.close())
    with pytest.raises(StateError):
        chat.append("user", "q")


def test_an_answer_that_ends_unread_is_reported_to_hooks_and_not_stored(faces, profile) -> None:
    told = []

    class Ends(Hook):
        def on_generation_end(self, chat, response, *, error=None) -> None:
            told.append((response.finish_reason, response.text, error))

    client = faces.client_of(ScriptedModel("one", "two"), profile=profile, hooks=[Ends()])
    chat = client.chat(session_id="s")
    faces.run(chat("Hi"))
    kept = chat.last_response
    faces.run(chat.send("Again"))
    assert told == [("cancelled", "", None), ("stop", "two", None)]
    assert kept.finish_reason == "cancelled"
    assert [item.text for item in client.chat(session_id="s").items] == ["Again", "two"]


def test_a_chat_that_is_opened_without_a_model_keeps_the_stored_one(profile) -> None:
    client = Client(ModelSpec("m", ScriptedModel("yes")), profile=profile)
    chat = client.chat()
    chat.send("Hi")
    opened = Chat(session_id=chat.session_id, profile=profile)
    opened.title = "A name"
    assert profile.database.load(chat.session_id).record["model"] == "m"
