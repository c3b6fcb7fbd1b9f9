"""One tokenizer for all folds or shares of a study, so that their losses are over the same tokens and compare.

It learns from the study's pool: all that any variation may train on. Of a learning curve that leaves out the validation
part; of folds, where each part is trained on by all others, only the test part. Leaves out how data are parted
(`training.parts`).
"""

from __future__ import annotations

from collections.abc import Iterable
from pathlib import Path

from utils.core.config import Config, digest
from utils.core.folders import written_whole
from utils.data.rows import RowsConfig
from utils.data.table import Table
from utils.data.tokenizers import build_tokenizer
from utils.experiments.sweep import override

READ = ("text", "second", "target")  # settings that name a column of text


def tokenizer_of_text(data: Config, pool: str, whole: str, folder: Path) -> list[str]:
    """Overrides that have data of a text read by the tokenizer that learned from `pool`; characters are of `whole`."""
    return _saved(data, "data", pool, whole, folder)


def tokenizer_of_rows(data: RowsConfig, pool: Table, others: Iterable[Table], folder: Path) -> list[str]:
    """Overrides that have rows read by the tokenizer that learned from `pool`; characters are of the `others`, too.

    It reads the columns of rows.text, rows.second and rows.target, as far as the rows have them. Rows that came as ids
    have a tokenizer already.
    """
    settings = data.model_dump()
    texts = [_texts(settings, table) for table in (pool, *others)]
    if not texts[0]:
        return []
    pooled, whole = ("\n".join([settings.get("prefix", ""), *part]) + "\n" for part in (texts[0], sum(texts, [])))
    return _saved(data, "rows", pooled, whole, folder)


def _saved(data: Config, setting: str, pool: str, whole: str, folder: Path) -> list[str]:
    config = getattr(data, "tokenizer", None)
    if config is None or config.kind in ("hf", "saved"):  # the same for every part as it is
        return []
    learned = [config.model_dump(mode="json"), "".join(sorted(set(whole))) if config.kind == "char" else pool]
    place = folder / f"tokenizer-{digest(learned)}"
    if not place.is_dir():
        with written_whole(place) as writing:
            build_tokenizer(config, whole, pool).save(writing)
    return [override(f"{setting}.tokenizer.kind", "saved"), override(f"{setting}.tokenizer.name", str(place))]


def _texts(settings: dict, table: Table) -> list[str]:
    found: list[str] = []
    for name in READ:
        column = settings.get(name) or ""
        if column in table.columns or column.partition(".")[0] in table.columns:
            found += [value for value in table.column(column, f"rows.{name}") if isinstance(value, str)]
    return found
