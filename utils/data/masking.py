"""What a model has to fill in: masked tokens (BERT), corrupted spans (T5), and a target moved right for its decoder.

Everything random is drawn from the generator given: equal ones give equal masks. Masks that shall not change with the
rows beside, or with the padding, want each row given by itself, unpadded, with a generator of its own.
"""

from __future__ import annotations

from collections.abc import Collection, Sequence

import numpy as np

IGNORED = -100


def mask_tokens(
    ids: np.ndarray,
    generator: np.random.Generator,
    *,
    mask_id: int,
    vocab_size: int,
    special_ids: Collection[int] = (),
    attention_mask: np.ndarray | None = None,
    rate: float = 0.15,
) -> tuple[np.ndarray, np.ndarray]:
    """Inputs and labels of a masked language model (Devlin et al. 2019, section 3.1), in the shape of `ids`.

    Of every row a share `rate` of the tokens is chosen (its fraction by chance, so that the mean is `rate`), and at
    least one. A chosen token becomes `mask_id` in 80% of cases, a random token in 10%, which may be the same again,
    and stays in 10%. Labels are the original ids where a token was chosen, -100 elsewhere.

    `ids` (T,) or (B, T). Never chosen, and never drawn: `special_ids` and the mask's own id; never chosen either:
    padding, which `attention_mask` (same shape) marks with 0. A row of nothing else has no target.
    """
    ids = np.asarray(ids)
    special = np.unique([mask_id, *special_ids])
    _check_mask(ids, special, vocab_size, attention_mask, rate)
    rows = np.atleast_2d(ids).astype(np.int64)
    maskable = ~np.isin(rows, special)
    if attention_mask is not None:
        maskable &= np.atleast_2d(attention_mask) != 0

    there = maskable.sum(1)  # (B,)
    wanted = np.floor(rate * there + generator.random(len(rows))).astype(np.int64)
    wanted = np.clip(wanted, np.minimum(there, 1), there)
    lots = np.where(maskable, generator.random(rows.shape), 2.0)
    chosen = lots.argsort(1, kind="stable").argsort(1) < wanted[:, None]  # the lowest lots of each row

    fate = generator.random(rows.shape)
    random = generator.integers(vocab_size - len(special), size=rows.shape)
    for each in special:  # ascending: moves what was drawn past the special ids
        random += random >= each
    inputs = np.where(chosen & (fate < 0.8), mask_id, rows)
    inputs = np.where(chosen & (fate >= 0.8) & (fate < 0.9), random, inputs)
    labels = np.where(chosen, rows, IGNORED)
    return inputs.reshape(ids.shape), labels.reshape(ids.shape)


def corrupt_spans(
    ids: np.ndarray,
    generator: np.random.Generator,
    *,
    sentinels: Sequence[int],
    density: float = 0.15,
    mean_span: float = 3.0,
) -> tuple[np.ndarray, np.ndarray]:
    """Encoder inputs and decoder targets of T5's pre-training (Raffel et al. 2020, sections 3.1.4 and 3.3.4).

    A share `density` of the tokens (rounded; at least one) is taken out, in spans of `mean_span` tokens on average
    that do not touch. In the inputs a sentinel stands for each span; the targets are each sentinel and its span, and
    one more sentinel at the end:

        Thank you for inviting me to your party last week
        Thank you <X> me to your party <Y> week             inputs
        <X> for inviting <Y> last <Z>                       targets

    Every way to place the spans is equally likely, at the ends of the text too (T5's own code never begins with a span
    and always ends with one). `ids` (T,) without end-of-text marks, which belong after the inputs and the targets.
    `sentinels` are the ids of <X>, <Y>, ... in order. Raises ValueError where they are too few or occur in the text.
    """
    ids = np.asarray(ids)
    if ids.ndim != 1 or len(ids) == 0:
        raise ValueError(f"ids of shape {ids.shape} came; expected one text of at least one token, (T,).")
    if not 0 < density < 1 or mean_span < 1:
        raise ValueError(f"density {density} must lie between 0 and 1, and mean_span {mean_span} be at least 1.")
    noise = min(max(1, round(len(ids) * density)), len(ids))
    kept = len(ids) - noise
    spans = min(max(1, round(noise / mean_span)), noise, kept + 1)  # between two spans stands a token
    _check_sentinels(ids, sentinels, spans, len(ids))

    lengths = _parts(noise, spans, generator)
    gaps = _parts(kept + 2, spans + 1, generator)  # before, between and after the spans
    gaps[[0, -1]] -= 1  # the outer ones may be empty
    inputs, targets, place = [], [], 0
    for sentinel, gap, length in zip(sentinels, gaps, lengths):
        inputs += [ids[place : place + gap], [sentinel]]
        place += gap
        targets += [[sentinel], ids[place : place + length]]
        place += length
    inputs.append(ids[place:])
    targets.append([sentinels[spans]])
    return np.concatenate(inputs).astype(np.int64), np.concatenate(targets).astype(np.int64)


def rebuild(inputs: np.ndarray, targets: np.ndarray, *, sentinels: Sequence[int]) -> np.ndarray:
    """The text that `corrupt_spans` took apart: each sentinel of the inputs replaced by its span in the targets.

    Raises ValueError where a sentinel of the inputs has no span there.
    """
    marks = set(map(int, sentinels))
    spans: dict[int, list[int]] = {}
    for token in map(int, targets):
        if token in marks:
            current = spans.setdefault(token, [])
        elif not spans:
            raise ValueError(f"The targets begin with {token}, which is no sentinel; expected {sentinels[0]}.")
        else:
            current.append(token)
    text: list[int] = []
    for token in map(int, inputs):
        if token in marks and token not in spans:
            raise ValueError(f"The inputs have the sentinel {token}, and the targets have no span for it.")
        text += spans[token] if token in marks else [token]
    return np.array(text, np.int64)


def shift_right(labels: np.ndarray, start_id: int, pad_id: int) -> np.ndarray:
    """What a decoder reads in order to say `labels`: `start_id`, then all of them but the last. (T,) or (B, T).

    A label of -100, which is no token, becomes `pad_id`.
    """
    labels = np.asarray(labels)
    shifted = np.full_like(labels, start_id)
    shifted[..., 1:] = np.where(labels[..., :-1] == IGNORED, pad_id, labels[..., :-1])
    return shifted


def _parts(total: int, number: int, generator: np.random.Generator) -> np.ndarray:
    """`total` cut into `number` parts of at least 1, every way equally likely."""
    cuts = np.sort(generator.choice(total - 1, number - 1, replace=False)) + 1
    return np.diff(np.concatenate(([0], cuts, [total])))


def _check_mask(
    ids: np.ndarray, special: np.ndarray, vocab_size: int, attention_mask: np.ndarray | None, rate: float
) -> None:
    if ids.ndim not in (1, 2):
        raise ValueError(f"ids of shape {ids.shape} came; expected (T,) or (B, T).")
    if attention_mask is not None and np.shape(attention_mask) != ids.shape:
        raise ValueError(f"attention_mask of shape {np.shape(attention_mask)} for ids of {ids.shape}; expected equal.")
    if not 0 < rate < 1:
        raise ValueError(f"rate {rate} must lie between 0 and 1.")
    if special[0] < 0 or special[-1] >= vocab_size or len(special) == vocab_size:
        raise ValueError(
            f"The mask's and the special ids are {special.tolist()} in a vocabulary of {vocab_size}; expected them in"
            " it, and an ordinary token beside them. Give the model's vocab_size, the mask token included."
        )


def _check_sentinels(ids: np.ndarray, sentinels: Sequence[int], spans: int, length: int) -> None:
    if len(set(sentinels)) != len(sentinels):
        raise ValueError("The same sentinel comes twice; each needs an id of its own.")
    if spans + 1 > len(sentinels):
        raise ValueError(
            f"{spans} spans in {length} tokens need {spans + 1} sentinels, and there are {len(sentinels)}; use shorter"
            " texts, a longer mean_span, or more sentinels."
        )
    found = np.intersect1d(ids, sentinels)
    if len(found):
        raise ValueError(f"The text has the sentinels {found.tolist()} in it; it could not be told from its spans.")
