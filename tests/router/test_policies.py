"""The order in which policies ask their models, as values; and what is wrong in a policy."""

import asyncio
import subprocess
import sys
import threading
from collections.abc import Iterator
from typing import Any

import pytest

from talu import Client
from talu.backends.scripted import ScriptedModel
from talu.bridge import run_in_background
from talu.config import GenerationConfig
from talu.exceptions import EndpointError, GenerationError, ValidationError
from talu.router import (
    ByCapability,
    Cheapest,
    Fallback,
    Fastest,
    First,
    LeastBusy,
    ModelSpec,
    Policy,
    RoundRobin,
    Router,
    Sticky,
    TargetStatus,
)
from talu.router.policy_calls import MAX_CALLS
from talu.types import Request

NAMES = ["a", "b", "c"]
REQUEST = Request(messages=({"role": "user", "content": "x" * 4000},))


def statuses(**values: list[Any]) -> list[TargetStatus]:
    rows = [dict(zip(values, row, strict=True)) for row in zip(*values.values(), strict=True)]
    return [
        TargetStatus(model=name, **row) for name, row in zip(NAMES, rows or [{}] * 3, strict=True)
    ]


def talk(*pairs: tuple[str, str]) -> Request:
    return Request(messages=tuple({"role": role, "content": text} for role, text in pairs))


@pytest.mark.parametrize("policy", [First(), Fallback(), ByCapability()])
def test_the_models_are_asked_in_their_order(policy: Policy) -> None:
    assert policy.order(REQUEST, statuses()) == NAMES


def test_round_robin_asks_the_models_in_turn() -> None:
    policy = RoundRobin()
    firsts = [policy.order(REQUEST, statuses()) for _ in range(4)]
    assert firsts == [["a", "b", "c"], ["b", "c", "a"], ["c", "a", "b"], ["a", "b", "c"]]


def test_the_least_busy_model_has_the_fewest_running_and_waiting_requests() -> None:
    busy = statuses(running=[2, 1, 1], waiting=[0, 1, 0])
    assert LeastBusy().order(REQUEST, busy) == ["c", "a", "b"]


def test_the_fastest_model_is_first_and_an_unknown_one_before_it_is_measured() -> None:
    assert Fastest().order(REQUEST, statuses(first_token_ms=[9.0, 1.0, 5.0])) == ["b", "c", "a"]
    assert Fastest().order(REQUEST, statuses(first_token_ms=[9.0, 1.0, None]))[0] == "c"
    measured = statuses(first_token_ms=[9.0, 1.0, None], running=[0, 0, 1])
    assert Fastest().order(REQUEST, measured) == ["b", "a", "c"]


def test_the_cheapest_model_depends_on_the_prompt_and_the_answer() -> None:
    policy = Cheapest({"a": (1.0, 12.0), "b": 3.0, "c": (3.0, 3.0)})
    assert policy.order(REQUEST, statuses()) == ["b", "c", "a"]  # 1,000 + 256 tokens
    short = Request(messages=REQUEST.messages, config=GenerationConfig(max_tokens=10))
    assert policy.order(short, statuses()) == ["a", "b", "c"]


def test_a_conversation_keeps_its_model_in_every_process() -> None:
    begun = [("system", "Be brief."), ("user", "Tell me about Rome.")]
    first = Sticky().order(talk(*begun), statuses())
    longer = talk(*begun, ("assistant", "Rome is a city."), ("user", "And Paris?"))
    assert Sticky().order(longer, statuses()) == first
    # The order is a property of the texts and the names, so it is the same everywhere.
    assert Sticky().order(talk(("user", "1")), statuses()) == ["a", "b", "c"]
    assert Sticky().order(talk(("user", "2")), statuses()) == ["b", "a", "c"]


def test_conversations_spread_over_all_models() -> None:
    firsts = [Sticky().order(talk(("user", str(n))), statuses())[0] for n in range(300)]
    assert all(70 <= firsts.count(name) <= 130 for name in NAMES)


def test_without_one_model_only_its_conversations_move() -> None:
    for number in range(50):
        request = talk(("user", str(number)))
        order = Sticky().order(request, statuses())
        rest = [target for target in statuses() if target.model != order[0]]
        assert Sticky().order(request, rest) == order[1:]


def test_the_system_message_and_the_raw_prompt_decide_as_well() -> None:
    def firsts(make: Any) -> set[str]:
        return {Sticky().order(make(str(n)), statuses())[0] for n in range(30)}

    assert firsts(lambda n: talk(("system", n), ("user", "hi"))) == set(NAMES)
    assert firsts(lambda n: Request(prompt=n)) == set(NAMES)
    assert firsts(lambda n: Request(token_ids=(int(n),))) == set(NAMES)
    parts = [{"type": "text", "text": "1"}, {"type": "image_url", "image_url": {"url": "data:"}}]
    with_image = Request(messages=({"role": "user", "content": parts},))
    assert Sticky().order(with_image, statuses()) == Sticky().order(talk(("user", "1")), statuses())


def models(*names: str) -> list[ModelSpec]:
    return [ModelSpec(name, ScriptedModel("hi")) for name in names]


def test_a_policy_is_a_model_of_the_client_by_its_own_name() -> None:
    with Client(models("a", "b"), policy=Fallback()) as client:
        assert client.default_model == client.chat().model == "fallback"
        assert client.models == ["a", "b"]
        assert client.router.names == ["a", "b", "fallback"]
        client.default_model = "b"
        assert client.chat().model == "b"
        assert client.chat(model="fallback").model == "fallback"
    with Client(models("a", "b"), policy=Fallback(name="any")) as client:
        assert client.default_model == "any"


def test_a_client_without_a_policy_uses_its_models_directly() -> None:
    specs = models("a", "b")
    with Client(specs) as client:
        assert client.router.backend() is specs[0].backend
        assert client.router.policy is None
        assert client.router.status().targets == ()


def test_a_policy_may_use_some_of_the_models_in_its_own_order() -> None:
    with Client(models("a", "b", "c"), policy=Fallback(models=["c", "a"])) as client:
        assert client.ask("hi").model == "c"


def test_the_target_of_a_policy_is_its_backend() -> None:
    with Router(models("a", "b"), policy=Fallback()) as router:
        target = router.resolve("fallback")
        assert (target.model, target.provider, target.location) == ("fallback", None, None)
        assert [each.model for each in router.targets] == ["a", "b"]


@pytest.mark.parametrize(
    ("policy", "message"),
    [
        (lambda: Fallback(name="a"), "the policy has the name of a model, 'a'"),
        (
            lambda: Fallback(models=["a", "longname2"]),
            r"models= of the policy.*'longname2'.*did you mean 'longname'",
        ),
        (lambda: Fallback(models="a"), "models must be a list"),
        (lambda: Fallback(models=[]), "models must be a list"),
        (lambda: Fallback(models=["a", "a"]), "different names"),
        (lambda: Fallback(name=" "), "name of a policy must be printable text"),
        (lambda: Fallback(hedge=1), "hedge must be True or False"),
        (lambda: First(hedge=True), "First asks no second model: leave out hedge=True"),
        (lambda: Fallback(wait=-1), "wait must be seconds"),
        (lambda: Fallback(wait=float("nan")), "wait must be seconds"),
        (lambda: Cheapest({"a": 1.0}), "no price for 'longname'"),
        (
            lambda: Cheapest({"a": 1.0, "longnam": 2.0}, models=["a"]),
            "prices= of the policy names the model 'longnam'.*did you mean 'longname'",
        ),
        (lambda: Cheapest({"a": -1.0, "longname": 1.0}), "the price of 'a' must be a number"),
        (lambda: Cheapest({"a": (1.0, True), "longname": 1.0}), "the price of 'a' must be"),
        (lambda: Cheapest([1.0]), "prices must be a dictionary"),
        (lambda: ByCapability(["tool_caling"]), r"did you mean 'tool_calling'"),
        (lambda: ByCapability("tools"), "needs must be a list"),
        (lambda: Fallback, r"policy is the class Fallback: create a policy, as in Fallback\(\)"),
        (lambda: "fallback", "policy must be a policy of talu.router"),
    ],
)
def test_what_is_wrong_in_a_policy_is_said_when_the_client_is_made(
    policy: Any, message: str
) -> None:
    with pytest.raises(ValidationError, match=message):
        Client(models("a", "longname"), policy=policy())


def test_a_policy_names_its_models_in_its_representation() -> None:
    assert repr(Fallback(models=["a"], name="any")) == "Fallback(models=['a'], name='any')"


@pytest.mark.parametrize("order", [None, "ab", [["a"]], ["a", "a"], [], ["c"], 5])
def test_an_order_that_names_no_models_is_refused(order: object) -> None:
    class Odd(Policy):
        def order(self, request: Any, targets: Any) -> Any:
            return order

    client = Client([ModelSpec(n, ScriptedModel("x")) for n in ("a", "b")], policy=Odd())
    with (
        client,
        pytest.raises(ValidationError, match="order must return a list of some"),
    ):
        client.ask("hi")


@pytest.mark.parametrize("price", [10**400, 1e300, -1, "x", (1, 2, 3)])
def test_a_price_that_is_none_is_refused(price: Any) -> None:
    with pytest.raises(ValidationError, match="the price of 'a' must be a number"):
        Cheapest({"a": price})


def test_a_wrong_question_to_several_models_is_an_error_and_no_answer() -> None:
    with Client([ModelSpec(n, ScriptedModel("x")) for n in ("a", "b")]) as client:
        for ask in (client.ask_all, client.race):
            with pytest.raises(ValidationError, match="a message cannot hold"):
                ask(None)  # type: ignore[arg-type]


@pytest.mark.parametrize(
    ("models", "policy"),
    [(["a"], Fallback(hedge=True)), (["a", "b"], Fallback(hedge=True, models=["b"]))],
)
def test_hedging_needs_a_second_model(models: list[str], policy: Policy) -> None:
    with pytest.raises(ValidationError, match="hedge=True needs a second model"):
        Client(models, policy=policy)


class Unprepared(Policy):
    """Does not call the constructor of its base."""

    def __init__(self) -> None:
        pass


def test_a_policy_has_to_call_the_constructor_of_its_base() -> None:
    with pytest.raises(ValidationError, match=r"Unprepared.__init__ must call super\(\).__init__"):
        Client(["a"], policy=Unprepared())


@pytest.mark.parametrize("checked", [None, [], "a", ["c"], ["a", "a"], [3], [["a"]], {"a"}])
def test_a_check_that_returns_no_models_of_the_client_is_refused(checked: Any) -> None:
    class Own(Policy):
        def check(self, models: Any) -> Any:
            return checked

    with pytest.raises(ValidationError, match=r"Own.check must return .* 'a', 'b', each once"):
        Client(["a", "b"], policy=Own())


@pytest.mark.parametrize("reason", [True, False, 0, ["no"], ""])
def test_a_reason_of_unfit_that_is_no_text_is_refused(awaited: Any, reason: Any) -> None:
    class Own(Policy):
        def unfit(self, backend: Any, request: Any) -> Any:
            return reason

    client = awaited.client_of(ScriptedModel("x", model="a"), policy=Own())
    with pytest.raises(ValidationError, match=r"Own.unfit must return a text .* or None"):
        awaited.run(client.ask("hi"))


class Raises(Policy):
    """Raises in the method that the test names."""

    def __init__(self, method: str, error: Exception) -> None:
        super().__init__()
        self._method, self._error = method, error

    def order(self, request: Any, targets: Any) -> list[str]:
        if self._method == "order":
            raise self._error
        return ["a", "b"]

    def unfit(self, backend: Any, request: Any) -> str | None:
        if self._method == "unfit":
            raise self._error
        return None

    def check(self, models: Any) -> list[str]:
        if self._method == "check":
            raise self._error
        return list(models)


RAISED = [KeyError("x"), TimeoutError(), EndpointError("elsewhere", transient=True)]


@pytest.mark.parametrize("error", RAISED, ids=lambda error: type(error).__name__)
@pytest.mark.parametrize("method", ["order", "unfit"])
def test_an_error_of_a_method_names_it_and_asks_no_model(
    faces: Any, method: str, error: Exception
) -> None:
    models = [ScriptedModel("x", model=name) for name in "ab"]
    client = faces.client_of(*models, policy=Raises(method, error))
    with pytest.raises(
        GenerationError,
        match=rf"Raises\.{method} of the policy raised {type(error).__name__}|elsew",
    ) as caught:
        faces.run(client.ask("hi", timeout=60))
    assert (caught.value.code, caught.value.__cause__) == ("POLICY_FAILED", error)
    assert [len(each.requests) for each in models] == [0, 0]
    assert [each.failures for each in client.router.status().targets] == [0, 0]


def test_an_error_of_a_check_names_it() -> None:
    with pytest.raises(ValidationError, match=r"Raises\.check of the policy raised KeyError: 'x'"):
        Client(["a", "b"], policy=Raises("check", KeyError("x")))


class Slow(Policy):
    """Its order waits until the test ends it."""

    def __init__(self) -> None:
        super().__init__()
        self.end = threading.Event()

    def order(self, request: Any, targets: Any) -> list[str]:
        self.end.wait(60)
        return ["a"]


def test_a_slow_order_does_not_block_the_event_loop(awaited: Any) -> None:
    policy = Slow()
    client = awaited.client_of(ScriptedModel("x", model="a"), policy=policy)

    async def main() -> Any:
        task = asyncio.ensure_future(client.ask("hi"))
        await asyncio.sleep(0.01)  # the loop runs although the order does not return
        policy.end.set()
        return await task

    assert awaited.run(main()).model == "a"


def test_a_slow_order_does_not_outlast_the_time_limit(faces: Any) -> None:
    policy = Slow()
    client = faces.client_of(ScriptedModel("x", model="a"), policy=policy)
    with pytest.raises(GenerationError, match=r"within timeout=0\.05 seconds"):
        faces.run(client.ask("hi", timeout=0.05))
    policy.end.set()


class Hanging(Slow):
    """Its methods do not return before the test ends them; it counts the calls of ``order``."""

    def __init__(self) -> None:
        super().__init__()
        self.calls = 0

    def order(self, request: Any, targets: Any) -> list[str]:
        self.calls += 1
        return super().order(request, targets)


@pytest.fixture
def hanging() -> Iterator[Hanging]:
    policy = Hanging()
    yield policy
    policy.end.set()


def test_a_policy_that_hangs_delays_no_other_client_and_no_thread_of_the_program(
    faces: Any, hanging: Hanging
) -> None:
    client = faces.client_of(ScriptedModel("x", model="a"), policy=hanging)
    for _ in range(12):  # the executor of an event loop has six threads on two processors
        with pytest.raises(GenerationError, match="within timeout"):
            faces.run(client.ask("hi", timeout=0.01))

    async def beside() -> str:
        return await asyncio.to_thread(str, "free")

    waited = run_in_background(beside) if faces.name == "sync" else faces.run(beside())
    assert waited == "free"
    assert faces.run(faces.client("fine").ask("hi", timeout=30)).text == "fine"


def test_a_policy_whose_calls_hang_is_not_called_again_until_one_returns(
    faces: Any, hanging: Hanging
) -> None:
    client = faces.client_of(ScriptedModel("x", model="a"), policy=hanging)
    for _ in range(MAX_CALLS):
        with pytest.raises(GenerationError, match="within timeout"):
            faces.run(client.ask("hi", timeout=0.01))
    with pytest.raises(GenerationError, match=r"16 calls of Hanging have not returned") as caught:
        faces.run(client.ask("hi"))
    assert (caught.value.code, hanging.calls) == ("POLICY_FAILED", MAX_CALLS)
    hanging.end.set()
    threads = [thread for thread in threading.enumerate() if thread.name == "talu-policy"]
    for thread in threads:
        thread.join()
    assert faces.run(client.ask("hi", timeout=30)).text == "x"


def test_more_requests_than_calls_of_a_policy_wait_for_their_turn(
    awaited: Any, hanging: Hanging
) -> None:
    client = awaited.client_of(ScriptedModel(*["x"] * 40, model="a"), policy=hanging)

    async def main() -> list[Any]:
        tasks = [asyncio.ensure_future(client.ask("hi")) for _ in range(40)]
        while hanging.calls < MAX_CALLS:
            await asyncio.sleep(0.001)
        hanging.end.set()
        return await asyncio.gather(*tasks)

    assert [answer.text for answer in awaited.run(main())] == ["x"] * 40


def test_requests_that_wait_for_a_policy_fail_when_all_of_its_calls_hang(
    awaited: Any, hanging: Hanging
) -> None:
    client = awaited.client_of(ScriptedModel("x", model="a"), policy=hanging)

    async def main() -> list[Any]:
        early = [asyncio.ensure_future(client.ask("hi", timeout=0.2)) for _ in range(MAX_CALLS)]
        await asyncio.sleep(0)
        return await asyncio.gather(*early, client.ask("hi"), return_exceptions=True)

    codes = [error.code for error in awaited.run(main())]
    assert codes == ["GENERATION_TIMEOUT"] * MAX_CALLS + ["POLICY_FAILED"]


def test_a_policy_that_hangs_does_not_delay_the_end_of_the_interpreter() -> None:
    program = """
import threading
from talu import Client, ModelSpec, ScriptedModel
from talu.exceptions import GenerationError
from talu.router import Policy
class Hanging(Policy):
    def order(self, request, targets):
        threading.Event().wait()
try:
    Client(ModelSpec("a", ScriptedModel("x")), policy=Hanging()).ask("x", timeout=0.05)
except GenerationError as error:
    print(error.code)
"""
    command = [sys.executable, "-c", program]
    done = subprocess.run(command, capture_output=True, text=True, timeout=60, check=True)
    assert (done.stdout, done.stderr) == ("GENERATION_TIMEOUT\n", "")
