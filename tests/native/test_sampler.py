"""The native sampler agrees with its slow definition, and refuses invalid input."""

from collections import Counter
from typing import Any

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from numpy.typing import NDArray

from talu.graph import numpy_sampler
from talu.graph.sampler import SampleRow, SamplerSettings, sample
from talu.protocols import Sampled

INF = np.float32(np.inf)
FILTERS: dict[str, dict[str, Any]] = {
    "greedy": {},
    "temperature": {"temperature": 0.7},
    "top-k": {"temperature": 0.8, "top_k": 40},
    "wide top-k": {"temperature": 1.5, "top_k": 700},
    "top-k of one": {"temperature": 1.0, "top_k": 1},
    "top-p": {"temperature": 1.0, "top_p": 0.9},
    "narrow top-p": {"temperature": 0.3, "top_p": 0.2},
    "wide top-p": {"temperature": 1.2, "top_p": 0.9995},
    "min-p": {"temperature": 1.0, "min_p": 0.03},
    "all filters": {"temperature": 0.9, "top_k": 60, "top_p": 0.8, "min_p": 0.02},
    "log-probabilities": {"temperature": 0.9, "top_p": 0.9, "top_logprobs": 7},
    "bias and penalty": {
        "temperature": 0.9,
        "top_k": 50,
        "repetition_penalty": 1.3,
        "bias_ids": (3, 8, 21),
        "bias_values": (4.5, -100.0, -0.5),
        "seen": np.array([3, 5, 5, 8, 13, 3], np.int32),
        "top_logprobs": 3,
    },
    "all penalties": {
        "temperature": 0.9,
        "repetition_penalty": 1.3,
        "presence_penalty": 0.7,
        "frequency_penalty": -0.3,
        "bias_ids": (3, 8, 21),
        "bias_values": (4.5, -100.0, -0.5),
        "seen": np.array([3, 5, 5, 8, 13, 3, 21, 21, 21, 5], np.int32),
        "seen_prompt": 3,
    },
}


def row_of(position: int = 0, *, seen: Any = None, mask: Any = None, **settings: Any) -> SampleRow:
    return SampleRow(SamplerSettings(**settings), position, seen, mask)


def mask_of(seed: int, vocabulary: int, share: float) -> NDArray[np.int32]:
    """Words of a mask that allows about this share of the tokens, and at least one."""
    allowed = np.random.default_rng(seed).random(-(-vocabulary // 32) * 32) < share
    allowed[vocabulary // 2] = True
    return np.packbits(allowed, bitorder="little").view(np.int32)


def logits_of(seed: int, rows: int, vocabulary: int, spread: float = 3.0) -> NDArray[np.float32]:
    generator = np.random.default_rng(seed)
    return (generator.standard_normal((rows, vocabulary)) * spread).astype(np.float32)


def assert_same(sampled: list[Sampled], expected: list[Sampled]) -> None:
    assert [s.token for s in sampled] == [e.token for e in expected]
    for s, e in zip(sampled, expected, strict=True):
        assert s.logprob == (e.logprob if e.logprob is None else pytest.approx(e.logprob, abs=2e-6))
        assert [i for i, _ in s.top_logprobs] == [i for i, _ in e.top_logprobs]
        assert [v for _, v in s.top_logprobs] == pytest.approx(
            [v for _, v in e.top_logprobs], abs=2e-6
        )


@pytest.mark.parametrize(
    ("counter", "key", "words"),
    [
        ((0, 0, 0, 0), (0, 0), (0x6627E8D5, 0xE169C58D, 0xBC57AC4C, 0x9B00DBD8)),
        ((0xFFFFFFFF,) * 4, (0xFFFFFFFF,) * 2, (0x408F276D, 0x41C83B0E, 0xA20BC7C6, 0x6D5451FD)),
        (
            (0x243F6A88, 0x85A308D3, 0x13198A2E, 0x03707344),
            (0xA4093822, 0x299F31D0),
            (0xD16CFE09, 0x94FDCCEB, 0x5001E420, 0x24126EA1),
        ),
    ],
)
def test_the_random_generator_gives_the_published_test_values(
    counter: tuple[int, int, int, int], key: tuple[int, int], words: tuple[int, ...]
) -> None:
    assert numpy_sampler.philox(counter, key) == words


@pytest.mark.parametrize("seed", [0, 7, 2**32 + 5, 2**64 - 1])
def test_equal_logits_select_the_token_by_the_random_number_alone(seed: int) -> None:
    positions = [0, 1, 2, 1000, 2**31, 2**32, 2**40 + 17, 2**63]
    rows = [row_of(temperature=1.0, seed=seed, position=p) for p in positions]
    tokens = [s.token for s in sample(np.zeros((len(rows), 4096), np.float32), rows)]
    assert tokens == [int(4096 * numpy_sampler.uniform(seed, p)) for p in positions]


@pytest.mark.parametrize("vocabulary", [1003, 5000])
@pytest.mark.parametrize("name", FILTERS)
def test_every_filter_draws_the_tokens_of_its_definition(name: str, vocabulary: int) -> None:
    logits = logits_of(1, 60, vocabulary)
    rows = [row_of(p, seed=9, **FILTERS[name]) for p in range(len(logits))]
    assert_same(sample(logits, rows), numpy_sampler.sample(logits, rows))


@pytest.mark.parametrize("spread", [0.0, 1e-4, 0.01, 1.0, 6.0])
def test_a_large_vocabulary_draws_the_tokens_of_the_definition(spread: float) -> None:
    logits = logits_of(2, len(FILTERS), 151_936, spread)
    rows = [row_of(p, seed=4, **changes) for p, changes in enumerate(FILTERS.values())]
    assert_same(sample(logits, rows), numpy_sampler.sample(logits, rows))


@pytest.mark.parametrize("vocabulary", [31, 32, 33, 1003, 151_936])
@pytest.mark.parametrize("share", [0, 0.02, 0.5, 1])
def test_a_mask_draws_the_tokens_of_its_definition(share: float, vocabulary: int) -> None:
    logits = logits_of(3, len(FILTERS), vocabulary)
    masks = [mask_of(number, vocabulary, share) for number in range(len(FILTERS))]
    rows = [row_of(i, mask=masks[i], **f) for i, f in enumerate(FILTERS.values())]
    drawn = sample(logits, rows)
    assert_same(drawn, numpy_sampler.sample(logits, rows))
    for mask, sampled in zip(masks, drawn, strict=True):
        assert mask[sampled.token // 32] >> sampled.token % 32 & 1


def test_a_masked_token_is_never_drawn_however_large_its_bias() -> None:
    row = row_of(mask=np.array([0b0110], np.int32), bias_ids=[3], bias_values=[1e6])
    assert sample(np.zeros((1, 4), np.float32), [row])[0].token == 1


def test_a_mask_does_not_change_the_rows_beside_it() -> None:
    logits = logits_of(8, 2, 1000)
    free, masked = row_of(4, temperature=1.0), row_of(4, mask=mask_of(1, 1000, 0.1))
    assert sample(logits, [free, masked])[0] == sample(logits, [free, free])[0]


@pytest.mark.parametrize("name", [name for name in FILTERS if name != "greedy"])
def test_exactly_the_tokens_that_the_filters_keep_are_drawn(name: str) -> None:
    top_k = min(FILTERS[name].get("top_k", 0), 30)
    row = row_of(**FILTERS[name] | {"temperature": 20.0, "top_k": top_k})
    logits = np.repeat(logits_of(3, 1, 64, 4.0), 4000, axis=0)
    drawn = sample(logits, [row._replace(position=p) for p in range(len(logits))])
    scores = numpy_sampler.adjusted(logits[0], row)
    assert (
        sorted({s.token for s in drawn}) == numpy_sampler.kept_tokens(scores, row.settings).tolist()
    )


@pytest.mark.parametrize("name", ["temperature", "top-k", "top-p", "all filters"])
def test_frequencies_fit_the_distribution(name: str) -> None:
    row, draws = row_of(**FILTERS[name]), 20_000
    logits = np.repeat(logits_of(5, 1, 100, 1.0), draws, axis=0)
    counts = Counter(
        s.token for s in sample(logits, [row._replace(position=p) for p in range(draws)])
    )
    kept = numpy_sampler.kept_tokens(logits[0], row.settings)
    weights = np.exp(logits[0][kept].astype(np.float64) / row.settings.temperature)
    expected = draws * weights / weights.sum()
    assert set(counts) <= set(kept.tolist())
    chi_square = sum((counts[t] - e) ** 2 / e for t, e in zip(kept.tolist(), expected, strict=True))
    freedom = len(kept) - 1
    assert abs(chi_square - freedom) < 3 * np.sqrt(2 * freedom)


def test_a_row_draws_the_same_alone_and_in_any_batch() -> None:
    logits = logits_of(6, len(FILTERS), 3000)
    rows = [row_of(40 + i, seed=1, **changes) for i, changes in enumerate(FILTERS.values())]
    together = sample(logits, rows)
    backwards = sample(np.ascontiguousarray(logits[::-1]), rows[::-1])[::-1]
    alone = [sample(logits[i : i + 1], [row])[0] for i, row in enumerate(rows)]
    assert together == backwards == alone


@pytest.mark.parametrize("threads", [2, 5])
def test_several_threads_draw_the_tokens_of_one(threads: int) -> None:
    rows = [row_of(40 + i, seed=1, **changes) for i, changes in enumerate(FILTERS.values())] * 4
    logits = logits_of(6, len(rows), 3000)
    assert sample(logits, rows, num_threads=threads) == sample(logits, rows)
    logits[7, 5] = logits[30, 6] = np.nan
    for _ in range(20):
        with pytest.raises(ValueError, match="row 7: the logit of token 5 is nan"):
            sample(logits, rows, num_threads=threads)


def test_greedy_takes_the_lowest_id_of_equal_logits() -> None:
    logits = np.array([[0, 2, 1, 2, 2]], np.float32)
    assert sample(logits, [row_of()]) == [Sampled(1)]


def test_top_k_keeps_the_lowest_ids_of_equal_logits() -> None:
    rows = [row_of(p, temperature=1.0, top_k=3) for p in range(200)]
    drawn = {s.token for s in sample(np.zeros((200, 300), np.float32), rows)}
    assert drawn == {0, 1, 2}


@pytest.mark.parametrize(("top_p", "kept"), [(0.0, 1), (0.49, 1), (0.51, 2), (0.76, 3), (0.99, 4)])
def test_top_p_keeps_the_token_that_reaches_the_limit(top_p: float, kept: int) -> None:
    logits = np.repeat(np.log([[0.25, 0.125, 0.5, 0.125]]).astype(np.float32), 400, axis=0)
    rows = [row_of(temperature=1.0, top_p=top_p, position=p) for p in range(400)]
    assert {s.token for s in sample(logits, rows)} == set([2, 0, 1, 3][:kept])


def test_presence_and_frequency_penalty_count_the_tokens_of_the_answer_alone() -> None:
    logits = np.array([[5.0, 4.0, 3.0]], np.float32)
    seen = np.array([0, 0, 0, 0, 1, 1, 1], np.int32)

    def first(**penalties: float) -> int:
        return sample(logits, [row_of(seen=seen, seen_prompt=4, **penalties)])[0].token

    assert first() == first(presence_penalty=2, frequency_penalty=2) == 0
    assert [first(frequency_penalty=x) for x in (-0.33, -0.34)] == [0, 1]
    assert [first(presence_penalty=x) for x in (-1.0, -1.01)] == [0, 1]
    row = row_of(seen=seen, frequency_penalty=0.4)
    assert sample(logits, [row])[0].token == 0  # 5 - 4 * 0.4 against 3: the count matters
    row = row_of(seen=seen, frequency_penalty=0.6)
    assert sample(logits, [row])[0].token == 2


def test_greedy_applies_bias_and_penalty() -> None:
    logits = np.array([[3.0, 2.0, -1.0, -1.1]], np.float32)
    seen = np.array([0, 0, 2, 2, 2], np.int32)
    assert sample(logits, [row_of(repetition_penalty=1.4, seen=seen)])[0].token == 0
    assert sample(logits, [row_of(repetition_penalty=1.6, seen=seen)])[0].token == 1
    assert sample(logits, [row_of(bias_ids=(3,), bias_values=(4.2,))])[0].token == 3
    banned = row_of(bias_ids=(0, 1), bias_values=(-100.0, -1e9), repetition_penalty=1.2, seen=seen)
    assert sample(logits, [banned])[0].token == 3


def test_a_banned_token_is_never_drawn_however_likely() -> None:
    logits = np.zeros((500, 8), np.float32)
    logits[:, 5] = 1e6
    rows = [
        row_of(temperature=5.0, bias_ids=[5], bias_values=[-100], position=p) for p in range(500)
    ]
    assert {s.token for s in sample(logits, rows)} == {0, 1, 2, 3, 4, 6, 7}


def test_logprobs_are_those_of_the_model_itself() -> None:
    logits = np.log([[0.5, 0.3, 0.2]]).astype(np.float32)
    row = row_of(temperature=0.1, top_k=1, bias_ids=(2,), bias_values=(9.0,), top_logprobs=2)
    (sampled,) = sample(logits, [row])
    assert sampled.token == 2
    assert sampled.logprob == pytest.approx(np.log(0.2), abs=1e-6)
    assert [i for i, _ in sampled.top_logprobs] == [0, 1]
    assert [v for _, v in sampled.top_logprobs] == pytest.approx(np.log([0.5, 0.3]), abs=1e-6)


def test_impossible_tokens_are_not_reported_as_alternatives() -> None:
    logits = np.array([[-INF, 1.0, -INF]], np.float32)
    assert sample(logits, [row_of(top_logprobs=3)]) == [Sampled(1, 0.0, ((1, 0.0),))]


@given(
    values=st.lists(
        st.floats(-80, 80, width=32) | st.just(float("-inf")), min_size=1, max_size=150
    ),
    temperature=st.floats(0, 1e30),
    top_k=st.integers(0, 200),
    top_p=st.floats(0, 1),
    min_p=st.floats(0, 1),
    position=st.integers(0, 2**64 - 1),
)
def test_a_token_that_a_filter_drops_is_never_drawn(
    values: list[float], temperature: float, top_k: int, top_p: float, min_p: float, position: int
) -> None:
    logits = np.array([values], np.float32)
    logits[0, len(values) // 2] = 0.5
    row = row_of(
        position, temperature=temperature, top_k=top_k, top_p=top_p, min_p=min_p, seed=3,
        top_logprobs=4,
    )  # fmt: skip
    (sampled,) = sample(logits, [row])
    scores = logits[0].astype(np.float64)
    better = scores > scores[sampled.token]
    with np.errstate(over="ignore"):
        weights = np.exp((scores - scores.max()) / max(temperature, 1e-40))
    assert weights[sampled.token] >= min_p * (1 - 1e-5)
    assert better.sum() < (top_k or len(values))
    assert weights[better].sum() <= top_p * weights.sum() * (1 + 1e-5)
    assert len(sampled.top_logprobs) == min(4, np.isfinite(scores).sum())


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"temperature": -0.5}, "temperature is -0.5"),
        ({"temperature": float("nan")}, "temperature is nan"),
        ({"top_k": -1}, "top_k is -1"),
        ({"top_p": 1.5}, "top_p is 1.5"),
        ({"min_p": -0.1}, "min_p is -0.1"),
        ({"repetition_penalty": 0.0}, "repetition_penalty is 0"),
        ({"presence_penalty": float("nan")}, "presence_penalty is nan"),
        ({"frequency_penalty": 1e7}, "frequency_penalty is 1e\\+07"),
        ({"bias_ids": (1,)}, "1 bias_ids but 0 bias_values"),
        ({"bias_ids": (-1,), "bias_values": (1.0,)}, "bias for token -1"),
        ({"bias_ids": (1,), "bias_values": (float("nan"),)}, "bias of token 1 is nan"),
    ],
)
def test_a_setting_out_of_range_is_refused_before_a_token_is_drawn(
    changes: dict[str, Any], message: str
) -> None:
    with pytest.raises(ValueError, match=message):
        SamplerSettings(**changes)


@pytest.mark.parametrize("changes", [{"seed": -1}, {"seed": "7"}, {"seed": 2**64}, {"top_k": 2.5}])
def test_a_setting_of_a_wrong_type_or_size_is_refused(changes: dict[str, Any]) -> None:
    with pytest.raises(TypeError):
        SamplerSettings(**changes)


def test_settings_cannot_be_changed_after_they_are_checked() -> None:
    settings: Any = SamplerSettings(temperature=0.5, bias_ids=[1], bias_values=[2.0])
    with pytest.raises(AttributeError):
        settings.temperature = -1.0
    settings.bias_ids.append(7)
    assert settings.bias_ids == [1]


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"position": -1}, "row 1: position is -1"),
        ({"seen_prompt": 1}, "row 1: seen_prompt is 1, but there are 0 seen tokens"),
        (
            {"bias_ids": (4,), "bias_values": (1.0,)},
            "row 1: bias for token 4, the vocabulary has 4",
        ),
        ({"seen": np.array([-1], np.int32)}, "row 1: seen token -1"),
        ({"seen": [1, 2]}, "row 1: seen is"),
        ({"mask": [1]}, "row 1: mask is"),
        ({"mask": np.zeros(2, np.int32)}, "row 1: the mask has 2 words"),
        ({"mask": np.zeros(1, np.int32)}, "row 1: no token is left"),
        ({"bias_ids": range(4), "bias_values": [-100] * 4}, "row 1: no token is left"),
    ],
)
def test_a_row_that_does_not_fit_the_logits_is_refused_with_its_number(
    changes: dict[str, Any], message: str
) -> None:
    rows = [row_of(temperature=1.0), row_of(**{"temperature": 1.0} | changes)]
    with pytest.raises(ValueError, match=message):
        sample(np.zeros((2, 4), np.float32), rows)


def test_a_row_without_settings_is_refused() -> None:
    settings = SamplerSettings()
    rows: list[Any] = [None, (None, 0, None, None), (settings, 0), (settings, 0, None), {}]
    for row in rows:
        with pytest.raises(ValueError, match="row 0: "):
            sample(np.zeros((1, 4), np.float32), [row])


@pytest.mark.parametrize("value", [np.nan, np.inf])
def test_a_nan_logit_is_refused_with_its_place(value: float) -> None:
    logits = np.zeros((3, 200), np.float32)
    logits[2, 131] = value
    with pytest.raises(ValueError, match=f"row 2: the logit of token 131 is {value}"):
        sample(logits, [row_of()] * 3)


def test_logits_and_rows_must_match() -> None:
    with pytest.raises(ValueError, match="3 rows of logits, but parameters for 2"):
        sample(np.zeros((3, 4), np.float32), [row_of()] * 2)
    with pytest.raises(ValueError, match="the vocabulary is empty"):
        sample(np.zeros((1, 0), np.float32), [row_of()])
    with pytest.raises(TypeError):
        sample(np.zeros((1, 4), np.float64), [row_of()])
    assert sample(np.zeros((0, 4), np.float32), []) == []
