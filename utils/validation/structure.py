"""What a model takes and gives: its shapes, the ends of its context and vocabulary, and all of it in its state dict."""

from __future__ import annotations

import copy
import tempfile
from pathlib import Path

import torch
from torch import Tensor

from utils.core.check import Check
from utils.core.repro import preserved_rng, seed_generators
from utils.models.adapter import Adapter
from utils.models.facts import ROWS, SEES_LATER
from utils.validation.dependence import change
from utils.validation.stability import among
from utils.validation.steady import Effort, WithoutDropout, first_line, frame, untouched


def kind(adapter: Adapter, effort: Effort, *, seed: int = 0) -> Check:
    """The kind is declared, or follows from what the model is. Warns where it was read off the model's behaviour alone.

    A language model whose positions see later tokens is a sound masked or a broken causal one: only its author knows.
    """
    how = adapter.read["kind"]
    if how == SEES_LATER:
        summary = (
            "taken for masked_lm, because its positions see later tokens. If it is to generate text, it is a causal "
            "model that leaks the future: declare kind=causal_lm and run again"
        )
        return Check("kind", "warn", summary)
    return Check("kind", "pass", f"{adapter.kind} ({how})")


def output_shapes(adapter: Adapter, effort: Effort, *, seed: int = 0) -> Check:
    """(B, T, V) or (B, classes) comes out, for batches of 1 to 3 and lengths of 1, odd, and the full context.

    No threshold: a call that raises, or another shape, fails.
    """
    name, rows = "output shapes", []
    full = effort.full(adapter)
    lengths = sorted({1, min(7, full), min(effort.length, full), full}) if adapter.text else [0]
    cases = [(2, length) for length in lengths] + [(1, lengths[len(lengths) // 2]), (3, lengths[len(lengths) // 2])]
    with untouched(adapter, seed=seed), torch.no_grad():
        for batch_size, length in cases:
            wanted = (batch_size, length) if adapter.per_token else (batch_size,)
            batch = adapter.batch(batch_size, length, seed=seed)
            got, error = _try(adapter, batch)
            shape = None if got is None else tuple(got.shape)
            sound = shape is not None and shape[:-1] == wanted and shape[-1] == adapter.outputs
            rows.append(
                {
                    "batch": batch_size,
                    "length": length,
                    "expected": str((*wanted, adapter.outputs)),
                    "got": error or str(shape),
                    "sound": sound,
                }
            )
    table = frame(rows)
    bad = table[~table["sound"]]
    if len(bad):
        first = bad.iloc[0]
        summary = (
            f"batch {first['batch']}, length {first['length']}: expected {first['expected']}, got {first['got']}; look "
            "at reshapes and at what is sized for one length only"
        )
        return Check(name, "fail", summary, table)
    cut = f"; the stated context of {adapter.limit:,} was tried up to {full:,}" if (adapter.limit or 0) > full else ""
    return Check(name, "pass", f"{len(rows)} batches gave the right shape{cut}", table)


def context_length(adapter: Adapter, effort: Effort, *, seed: int = 0) -> Check:
    """One token past the stated context is refused, or has a position of its own.

    Where the model accepts it, the last output must tell two places past the context apart: moving a token by one has
    to change it, as a share of what that token does there at all, at least a tenth as much as within the context.
    Positions that are clamped, or zero past the context, do a small fraction of that. Relative positions, which go on,
    pass. A model that cuts a longer input to its context, and gives fewer outputs than tokens, fails. What is missed:
    a causal mask alone tells places apart a little, as much as the rotary positions of a short, untrained model do.
    """
    name = "context length"
    if not adapter.text:
        return Check(name, "skip", "images have no context length")
    if adapter.limit is None:
        return Check(name, "skip", "the model states no context length")
    limit = adapter.limit
    if limit < 8 or limit > effort.longest:
        why = (
            "too short to compare places within it"
            if limit < 8
            else f"beyond the {effort.longest:,} tokens of this scale"
        )
        return Check(name, "skip", f"a context of {limit:,} is {why}")
    with untouched(adapter, seed=seed):
        # An index out of range breaks a GPU's context for the whole process: past the limit a copy on the CPU is asked.
        asked = adapter.on_cpu()
        with torch.no_grad(), WithoutDropout():
            if asked is not adapter:
                _, error = _try(asked, asked.batch(1, limit, seed=seed))
                if error:
                    return Check(name, "skip", f"a copy on the CPU, which is asked for safety, does not run: {error}")
            got, error = _try(asked, asked.batch(1, limit + 1, seed=seed))
            if error:
                return Check(name, "pass", f"{limit + 1:,} tokens are refused ({error}), as stated")
            if adapter.per_token and got.shape[1] != limit + 1:
                summary = (
                    f"{limit + 1:,} tokens are accepted, though the context is {limit:,}, and {got.shape[1]:,} outputs "
                    "come: some tokens are dropped in silence; refuse longer inputs"
                )
                return Check(name, "fail", summary)
            rows = [{"tokens": length} | _place_effect(asked, length, seed) for length in (limit, limit + 4)]
    table = frame(rows)
    if table["change by place"][0] < 1e-7:
        return Check(name, "pass", "longer inputs are accepted; places do not matter within the context either", table)
    within, past = table["share"]
    if past < 0.1 * within:
        summary = (
            f"{limit + 1:,} tokens are accepted, though the context is {limit:,}, but their places are lost (moving a "
            f"token has {past / within:.1%} of its effect within the context): refuse longer inputs, or give them "
            "positions"
        )
        return Check(name, "fail", summary, table)
    return Check(name, "pass", f"longer inputs than the stated {limit:,} are accepted, and keep their places", table)


def _place_effect(adapter: Adapter, length: int, seed: int) -> dict[str, float]:
    """How the last output changes in a row of equal tokens but one: when that one moves from two to three places before
    the last, and when it becomes equal too; and the share of the first in the second."""
    generator = torch.Generator().manual_seed(seed)
    moved = removed = 0.0
    for _ in range(8):
        common, odd = adapter.random_ids((2,), generator, adapter.target_size)
        ids = torch.full((3, length), common.item())
        ids[0, -3], ids[1, -4] = odd, odd
        batch = adapter.batch(3, length, seed=seed)
        batch = {key: value[:1].expand_as(value) for key, value in batch.items()}  # a seq2seq model's one source
        batch[adapter.varied] = ids.to(adapter.device)
        logits = adapter(batch)
        last = logits[:, -1] if logits.dim() == 3 else logits
        moved += change(last[0], last[1], logits) / 8
        removed += change(last[0], last[2], logits) / 8
    return {"change by place": moved, "change by token": removed, "share": moved / max(removed, 1e-12)}


def vocabulary_range(adapter: Adapter, effort: Effort, *, seed: int = 0) -> Check:
    """The smallest and the largest id are accepted, and a language model has a logit for every id.

    No threshold: an embedding with fewer rows than the vocabulary, a call that raises, or a head that is too narrow
    fails. A head may be wider (padded to a multiple of 64, say).
    """
    name = "vocabulary range"
    if not adapter.text:
        return Check(name, "skip", "images have no vocabulary")
    size = adapter.vocab_size
    rows = adapter.embedding.num_embeddings if adapter.embedding is not None else None
    facts = frame([{"vocabulary": size, "embedding rows": rows, "outputs": adapter.outputs}])
    if rows is not None and rows < size:
        summary = (
            f"the vocabulary is {size:,} ({adapter.read['vocabulary']}), but the embedding has {rows:,} rows: ids from "
            f"{rows:,} on cannot be looked up; make the two equal"
        )
        return Check(name, "fail", summary, facts)
    wanted = adapter.target_size or size
    if adapter.head and adapter.language and adapter.outputs < wanted:
        summary = f"the vocabulary is {wanted:,}, but only {adapter.outputs:,} logits come out: widen the head"
        return Check(name, "fail", summary, facts)
    with untouched(adapter, seed=seed), torch.no_grad():
        for identity in (0, size - 1):
            batch = adapter.batch(2, effort.length_for(adapter), seed=seed)
            for key, largest in (("input_ids", size - 1), ("decoder_input_ids", wanted - 1)):
                if key in batch:
                    batch[key] = among(batch[key], min(identity, largest))
            _, error = _try(adapter, batch)
            if error:
                return Check(name, "fail", f"id {identity:,} of a vocabulary of {size:,} is refused: {error}", facts)
    if adapter.head and adapter.language and wanted != adapter.outputs and adapter.read["vocabulary"] == ROWS:
        summary = (
            f"the vocabulary is the {wanted:,} rows of the embedding, but {adapter.outputs:,} logits come out: if "
            "the head is not padded on purpose, one of them is wrong; give vocab_size in the config"
        )
        return Check(name, "warn", summary, facts)
    return Check(name, "pass", f"ids 0 and {size - 1:,} are accepted; {adapter.outputs:,} outputs", facts)


def state_dict_round_trip(adapter: Adapter, effort: Effort, *, seed: int = 0) -> Check:
    """A fresh instance that loads the saved state dict gives the same output, bit for bit.

    Threshold: 1e-6 of the largest logit (0 on a CPU). Weights kept outside the state dict (a plain tensor attribute, a
    buffer with persistent=False) are lost by every checkpoint. Saved and loaded through a file, with weights_only=True.
    """
    name = "state dict round trip"
    batch = adapter.batch(2, effort.length_for(adapter), seed=seed)
    with (
        untouched(adapter, seed=seed) as model,
        torch.no_grad(),
        WithoutDropout(),
        tempfile.TemporaryDirectory() as folder,
    ):
        before = adapter(batch)
        path = Path(folder) / "state.pt"
        torch.save(model.state_dict(), path)
        with preserved_rng():
            seed_generators(seed + 1)  # a fresh instance starts from other weights, so that what is not loaded shows
            fresh = adapter.build() if adapter.build is not None else copy.deepcopy(model)
        try:
            fresh.load_state_dict(torch.load(path, weights_only=True, mmap=True), strict=True)
        except RuntimeError as error:
            return Check(name, "fail", f"a fresh instance refuses the state dict: {first_line(error)}")
        seed_generators(seed)  # a noise that is left on in eval is another check's finding
        after = adapter.on(fresh.to(adapter.device).eval())(batch)
    gap = change(before, after)
    if gap > 1e-6:
        summary = (
            f"a fresh instance with the saved weights answers differently, by {gap:.1e} of the largest logit: "
            "something that decides the output is not in the state dict; register it as a parameter or a persistent "
            "buffer"
        )
        return Check(name, "fail", summary)
    if adapter.build is None:
        return Check(name, "pass", "the state dict saves and loads (no fresh instance could be built to compare with)")
    return Check(name, "pass", "a fresh instance with the saved weights gives the same output")


def _try(adapter: Adapter, batch: dict[str, Tensor]) -> tuple[Tensor | None, str]:
    """The output, or what the model raised: that it does is the finding."""
    try:
        return adapter(batch), ""
    except (MemoryError, torch.OutOfMemoryError):
        raise
    except Exception as error:  # noqa: BLE001
        return None, f"{type(error).__name__}: {first_line(error)}"
