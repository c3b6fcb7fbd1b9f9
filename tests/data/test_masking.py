"""Masks against the published proportions; corrupted spans rebuild the text; a target moved right by hand."""

import math
from collections import Counter

import numpy as np
import pytest

from utils.data.masking import corrupt_spans, mask_tokens, rebuild, shift_right

VOCABULARY = 1000
MASK, PAD, CLS, SEP = 3, 0, 1, 2
BERT = {"mask_id": MASK, "vocab_size": VOCABULARY, "special_ids": (PAD, CLS, SEP)}
SENTINELS = list(range(2099, 1999, -1))  # 100 of them, downwards as T5's


def texts(rows=1000, seed=0):
    """Rows of 40 to 159 ordinary tokens between [CLS] and [SEP], padded; some ordinary tokens are masked out too."""
    draw = np.random.default_rng(seed)
    ids, mask = np.full((rows, 161), PAD), np.zeros((rows, 161), np.int64)
    for row, length in enumerate(draw.integers(40, 160, rows)):
        ids[row, : length + 2] = [CLS, *draw.integers(4, VOCABULARY, length), SEP]
        ids[row, length + 2 :] = draw.choice([PAD, 77], 161 - length - 2)  # padding may have any id
        mask[row, : length + 2] = 1
    return ids, mask


def within(count, total, share):
    """Whether a binomial count lies within four standard deviations."""
    return abs(count - total * share) <= 4 * math.sqrt(total * share * (1 - share))


def test_a_share_of_15_percent_is_chosen_and_split_80_10_10():
    ids, mask = texts()
    inputs, labels = mask_tokens(ids, np.random.default_rng(0), attention_mask=mask, **BERT)
    maskable = int((mask == 1).sum()) - 2 * len(ids)  # all but [CLS] and [SEP]
    chosen = labels != -100
    assert maskable > 81_600  # four standard deviations of the binomial share are then 4 sqrt(.15 .85 / n) < 0.005
    assert abs(chosen.sum() / maskable - 0.15) < 0.005
    masked, same = chosen & (inputs == MASK), chosen & (inputs == ids)
    other = chosen & ~masked & ~same
    # 996 ordinary tokens: one random token in 996 is the one that stood there.
    assert within(masked.sum(), chosen.sum(), 0.8)
    assert within(same.sum(), chosen.sum(), 0.1 + 0.1 / 996)
    assert within(other.sum(), chosen.sum(), 0.1 - 0.1 / 996)


def test_no_special_token_and_no_padding_is_ever_chosen_or_drawn():
    ids, mask = texts()
    inputs, labels = mask_tokens(ids, np.random.default_rng(1), attention_mask=mask, rate=0.9, **BERT)
    kept = np.isin(ids, [PAD, CLS, SEP]) | (mask == 0)
    assert (labels[kept] == -100).all()
    assert (inputs[kept] == ids[kept]).all()
    assert not np.isin(inputs[~kept], [PAD, CLS, SEP]).any()


def test_labels_are_the_original_tokens_and_other_places_stay():
    ids, mask = texts(50)
    before = ids.copy()
    inputs, labels = mask_tokens(ids, np.random.default_rng(2), attention_mask=mask, **BERT)
    chosen = labels != -100
    assert (labels[chosen] == ids[chosen]).all()
    assert (inputs[~chosen] == ids[~chosen]).all()
    assert (ids == before).all()
    assert inputs.dtype == labels.dtype == np.int64


def test_random_tokens_are_uniform_over_the_ordinary_ones():
    # Ten ids, of which 0, 4 and 9 are special: seven ordinary ones. Where 1 stood, a tenth becomes random.
    ids = np.ones((2000, 100), np.int64)
    inputs, labels = mask_tokens(ids, np.random.default_rng(3), mask_id=9, vocab_size=10, special_ids=(0, 4))
    counts = Counter(inputs[labels != -100].tolist())
    assert set(counts) == {1, 2, 3, 5, 6, 7, 8, 9}
    assert all(within(counts[token], 30_000, 0.1 / 7) for token in (2, 3, 5, 6, 7, 8))


def test_every_place_is_as_likely():
    ids = np.full((20_000, 20), 5)
    _, labels = mask_tokens(ids, np.random.default_rng(4), **BERT)
    assert ((labels != -100).sum(1) == 3).all()  # 15% of 20
    assert all(within(count, 20_000, 0.15) for count in (labels != -100).sum(0))


@pytest.mark.parametrize("length", range(1, 15))
def test_every_row_has_a_target_and_15_percent_where_that_is_more(length):
    ids = np.full((4000, length + 1), 5)
    ids[:, 0] = CLS
    _, labels = mask_tokens(ids, np.random.default_rng(5), **BERT)
    counts = (labels != -100).sum(1)
    least = max(1, math.floor(0.15 * length))
    share = max(0.0, 0.15 * length - least)  # of rows with one more
    assert set(counts) <= {least, least + 1}
    assert within((counts == least + 1).sum(), 4000, share)


def test_a_row_of_special_tokens_alone_has_no_target():
    ids = np.array([[CLS, SEP, PAD, MASK], [CLS, 7, SEP, MASK]])
    _, labels = mask_tokens(ids, np.random.default_rng(6), **BERT)
    assert labels.tolist() == [[-100] * 4, [-100, 7, -100, -100]]


def test_equal_generators_give_equal_masks_and_one_generator_gives_new_ones():
    ids, mask = texts(20)
    draw = np.random.default_rng(7)
    first, second = (mask_tokens(ids, draw, attention_mask=mask, **BERT)[1] for _ in "ab")
    again = mask_tokens(ids, np.random.default_rng(7), attention_mask=mask, **BERT)[1]
    assert (first == again).all()
    assert (first != second).any()


def test_one_row_is_masked_as_a_batch_of_one():
    ids = np.arange(4, 60)
    row, batch = (mask_tokens(each, np.random.default_rng(8), **BERT) for each in (ids, ids[None]))
    assert all((one == many[0]).all() and one.shape == ids.shape for one, many in zip(row, batch))


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"rate": 1.5}, "rate 1.5"),
        ({"vocab_size": 3}, r"\[0, 1, 2, 3\] in a vocabulary of 3"),
        ({"vocab_size": 4}, "an ordinary token beside them"),
        ({"attention_mask": np.ones(3)}, r"shape \(3,\) for ids of \(5,\)"),
    ],
)
def test_settings_that_cannot_be_are_refused(changes, message):
    with pytest.raises(ValueError, match=message):
        mask_tokens(np.full(5, 2), np.random.default_rng(0), **BERT | changes)


WORDS = ["Thank", "you", "for", "inviting", "me", "to", "your", "party", "last", "week"]
X, Y, Z = 90, 91, 92


def test_the_published_example_is_rebuilt():
    # Raffel et al. 2020, figure 2, with the words numbered from 0.
    inputs = [0, 1, X, 4, 5, 6, 7, Y, 9]
    targets = [X, 2, 3, Y, 8, Z]
    text = rebuild(np.array(inputs), np.array(targets), sentinels=[X, Y, Z])
    assert [WORDS[token] for token in text] == WORDS


@pytest.mark.parametrize("density", [0.15, 0.5, 0.9])
def test_spans_rebuild_the_text_at_every_length(density):
    draw = np.random.default_rng(0)
    for length in [*range(1, 80), 127, 256, 300]:
        ids = draw.integers(2000, size=length)
        inputs, targets = corrupt_spans(ids, draw, sentinels=SENTINELS, density=density)
        taken = min(max(1, round(density * length)), length)
        spans = int(np.isin(inputs, SENTINELS).sum())
        assert (rebuild(inputs, targets, sentinels=SENTINELS) == ids).all()
        assert len(inputs) == length - taken + spans
        assert len(targets) == taken + spans + 1
        assert inputs[np.isin(inputs, SENTINELS)].tolist() == SENTINELS[:spans]
        assert targets[np.isin(targets, SENTINELS)].tolist() == SENTINELS[: spans + 1]
        assert targets[0] == SENTINELS[0]
        assert targets[-1] == SENTINELS[spans]


def test_500_tokens_lose_75_in_25_spans():
    # Section 3.3.4: "15% of tokens ... 25 total spans, then the total number of corrupted tokens would be 75".
    inputs, targets = corrupt_spans(np.arange(500), np.random.default_rng(0), sentinels=SENTINELS)
    assert np.isin(inputs, SENTINELS).sum() == 25
    assert np.isin(targets, SENTINELS).sum() == 26
    assert len(targets) - 26 == 75
    assert len(inputs) == 500 - 75 + 25


def test_every_placement_of_the_spans_is_as_likely():
    # Two spans of one token in a text of four: they begin it, end it, or both.
    draw = np.random.default_rng(0)
    found = Counter()
    for _ in range(3000):
        _, targets = corrupt_spans(np.arange(4), draw, sentinels=[9, 8, 7], density=0.5, mean_span=1)
        found[tuple(targets[[1, 3]].tolist())] += 1
    assert set(found) == {(0, 2), (0, 3), (1, 3)}
    assert all(within(count, 3000, 1 / 3) for count in found.values())


def test_equal_generators_give_equal_spans():
    ids = np.arange(100)
    draw = np.random.default_rng(1)
    first, second = (corrupt_spans(ids, draw, sentinels=SENTINELS)[0] for _ in "ab")
    again = corrupt_spans(ids, np.random.default_rng(1), sentinels=SENTINELS)[0]
    assert first.tolist() == again.tolist() != second.tolist()


@pytest.mark.parametrize(
    ("ids", "changes", "message"),
    [
        (np.empty(0, np.int64), {}, "at least one token"),
        (np.zeros((2, 3), np.int64), {}, r"\(2, 3\) came"),
        (np.arange(100), {"sentinels": SENTINELS[:5]}, "5 spans in 100 tokens need 6 sentinels, and there are 5"),
        (np.array([5, 2099, 7]), {}, r"the sentinels \[2099\] in it"),
        (np.arange(9), {"sentinels": [50, 50]}, "comes twice"),
        (np.arange(9), {"density": 1.0}, "density 1.0"),
        (np.arange(9), {"mean_span": 0.5}, "mean_span 0.5"),
    ],
)
def test_texts_that_cannot_be_corrupted_are_refused(ids, changes, message):
    with pytest.raises(ValueError, match=message):
        corrupt_spans(ids, np.random.default_rng(0), **{"sentinels": SENTINELS} | changes)


def test_inputs_and_targets_that_do_not_belong_together_are_not_rebuilt():
    with pytest.raises(ValueError, match=f"sentinel {Y}"):
        rebuild(np.array([1, X, 2, Y]), np.array([X, 5]), sentinels=[X, Y, Z])
    with pytest.raises(ValueError, match="begin with 5"):
        rebuild(np.array([1, X]), np.array([5, X]), sentinels=[X, Y, Z])


def test_labels_are_moved_right_behind_the_start():
    labels = np.array([[11, 12, 13, 14], [21, 22, -100, -100]])
    assert shift_right(labels, 9, 0).tolist() == [[9, 11, 12, 13], [9, 21, 22, 0]]
    assert shift_right(labels[1], 9, 0).tolist() == [9, 21, 22, 0]
    assert labels[1].tolist() == [21, 22, -100, -100]
