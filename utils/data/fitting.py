"""Whether a tokenizer fits a model: ids within the embedding, the special tokens of its task, texts that come back.

`fit_embeddings` makes the embedding larger, and only where that is asked for.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING

from utils.core.check import Check
from utils.data.special import special_of
from utils.data.splits import normalised
from utils.data.tokenizer import Tokenizer, TokenizerError

if TYPE_CHECKING:
    from torch import nn

SAMPLES = (
    "The quick brown fox jumps over the lazy dog.",
    "def add(a, b):\n    return a + b\n",
    "1, 22, 333: naïve café",
)


def tokenizer_checks(
    tokenizer: Tokenizer, task: str, model: nn.Module | None = None, texts: Sequence[str] = SAMPLES
) -> list[Check]:
    """Three checks: the ids fit the model's embedding, the task's special tokens are there, `texts` come back."""
    return [ids_check(tokenizer, model), special_check(tokenizer, task), round_trip_check(tokenizer, texts)]


def ids_check(tokenizer: Tokenizer, model: nn.Module | None) -> Check:
    """Whether every id of the tokenizer has a row in the model's embedding."""
    name, size = "ids within the embedding", tokenizer.vocab_size
    if model is None:
        return Check(name, "skip", "no model was given")
    rows = embedding_of(model).num_embeddings
    if size > rows:
        told = f"the tokenizer has {size:,} ids and the embedding {rows:,} rows: use the model's own tokenizer"
        return Check(name, "fail", f"{told}, or ask for new rows, which begin untrained: source.resize_embeddings=true")
    spare = f", {rows - size:,} rows to spare" if rows > size else ""
    return Check(name, "pass", f"{size:,} ids in {rows:,} rows{spare}")


def special_check(tokenizer: Tokenizer, task: str) -> Check:
    """Whether the tokenizer has the special tokens that the task cannot do without, and those it had better have."""
    special = special_of(tokenizer)
    needed = {"masked_lm": {"mask": special.mask}, "seq2seq": {"end": special.end}}.get(task, {})
    wanted = {"padding": special.pad, "end": special.end} if task != "causal_lm" else {"end": special.end}
    has = ", ".join(f"{name} (id {index})" for name, index in {**wanted, **needed}.items() if index is not None)
    missing = [name for name, index in needed.items() if index is None]
    if missing:
        return Check("special tokens", "fail", f"{task} needs {', '.join(missing)}, which the tokenizer lacks")
    absent = [name for name, index in wanted.items() if index is None]
    if absent:
        told = f"none for {' and '.join(absent)}: batches mark padding by their mask alone"
        return Check("special tokens", "warn", f"{told}{f'; it has {has}' if has else ''}", critical=False)
    return Check("special tokens", "pass", f"{has} {'exist' if ', ' in has else 'exists'}")


def round_trip_check(tokenizer: Tokenizer, texts: Sequence[str]) -> Check:
    """Whether texts come back from their ids: wholly, or but for case, spacing and punctuation, or not."""
    import pandas

    rows = []
    for text in texts:
        try:
            back = tokenizer.decode(tokenizer.encode(text).tolist())
        except TokenizerError as error:
            back = f"(refused: {error})"
        same = "wholly" if back == text else "its words" if _words(back) == _words(text) else "no"
        rows.append({"text": text[:60], "comes back": same, "as": back[:60]})
    table = pandas.DataFrame(rows, columns=["text", "comes back", "as"])
    lost = int((table["comes back"] == "no").sum())
    if lost:
        told = f"{lost} of {len(rows)} texts do not come back from their ids: the model cannot say them"
        return Check("round trip", "warn", told, table, critical=False)
    parts = int((table["comes back"] == "its words").sum())
    told = f"{parts} of {len(rows)} texts come back but for case, accents or spacing" if parts else "all come back"
    return Check("round trip", "pass", told, table, critical=False)


def fit_embeddings(model: nn.Module, tokenizer: Tokenizer, resize: bool = False) -> int:
    """The rows of the embedding, at least as many as the tokenizer has ids; made larger only where `resize` is true.

    An embedding that has room to spare is left as it is. New rows are drawn by transformers (around the mean of the old
    ones), from torch's generator. Raises `TokenizerError` where it is too small and resizing was not asked for, or
    where the model has no way to do it.
    """
    rows, size = embedding_of(model).num_embeddings, tokenizer.vocab_size
    if size <= rows:
        return rows
    if not resize:
        raise TokenizerError(
            f"The tokenizer has {size:,} ids and the model's embedding {rows:,} rows: the ids from {rows:,} on would"
            " fail. Use the model's own tokenizer, or ask for new rows, which begin untrained:"
            " source.resize_embeddings=true."
        )
    if not hasattr(model, "resize_token_embeddings"):
        raise TokenizerError(
            f"{type(model).__name__} has no resize_token_embeddings (models of transformers' have one): its embedding"
            f" of {rows:,} rows cannot be resized to {size:,}. Build it with vocab_size={size}."
        )
    model.resize_token_embeddings(size)
    return embedding_of(model).num_embeddings


def embedding_of(model: nn.Module) -> nn.Embedding:
    """That of the input ids: what `get_input_embeddings` gives, else `.embedding`, else the first nn.Embedding."""
    from torch import nn

    if hasattr(model, "get_input_embeddings"):
        return model.get_input_embeddings()
    if isinstance(getattr(model, "embedding", None), nn.Embedding):
        return model.embedding
    found = next((module for module in model.modules() if isinstance(module, nn.Embedding)), None)
    if found is None:
        raise TokenizerError(f"{type(model).__name__} has no nn.Embedding, so it takes no token ids.")
    return found


def _words(text: str) -> str:
    """A text's letters and digits alone, without accents."""
    import unicodedata

    plain = "".join(letter for letter in unicodedata.normalize("NFKD", text) if not unicodedata.combining(letter))
    return normalised(plain).replace(" ", "")
