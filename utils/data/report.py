"""What prepared data look like before anything is trained on them: a `Report` of checks, and the lengths as a figure.

The limits beyond which a check warns are the constants below; nothing here changes the data.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np

from utils.core.check import Check, Report
from utils.core.plots import canvas
from utils.data.loaders import SPLITS

if TYPE_CHECKING:
    import pandas
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure

    from utils.data.task import TaskData

UNKNOWN = 0.01  # share of unknown tokens
CUT = 0.05  # share of rows that were cut
PADDING = 0.3  # share of places that hold padding
RARE = 0.1  # of the largest class's rows, what the smallest should have
QUANTILES = (0.0, 0.25, 0.5, 0.75, 0.95, 1.0)


def data_report(data: TaskData, batch_size: int = 32) -> Report:
    """Counts, lengths, vocabulary, empty rows, truncation, padding, duplicates between splits, and class balance."""
    if "task" not in data.metadata:
        counts = [Check("rows", "skip", "the folder holds packed text, of which no rows are known")]
        return Report(f"Data for {data.task}", counts, facts(data), word="ready")
    checks = [_counts(data), _lengths(data), _truncation(data), _padding(data, batch_size)]
    checks += [_vocabulary(data), _duplicates(data)]
    if data.task == "classifier":
        checks.append(_balance(data))
    return Report(f"Data for {data.task}", checks, facts(data), word="ready")


def facts(data: TaskData) -> dict[str, str]:
    """Where the data come from and how they were made."""
    metadata = data.metadata
    made = metadata.get("splits_made", ())
    found = {
        "source": metadata["source"],
        "columns": ", ".join(f"{name}: {column}" for name, column in metadata.get("columns", {}).items()),
        "tokenizer": f"{metadata['tokenizer']['kind']}, {metadata['vocab_size']:,} entries",
        "splits made here": f"{', '.join(made)}, by hashing each row" if made else "",
        "notes": "; ".join(metadata.get("notes", ())),
        "fingerprint": data.fingerprint,
    }
    return {name: value for name, value in found.items() if value}


def lengths_of(data: TaskData, name: str, column: str = "") -> np.ndarray:
    """(N,) ids of each row of a split before any was cut; `column` is "target" for a seq2seq model's targets."""
    part = f"{name}.{column}" if column else name
    return np.fromfile(data.folder / f"{part}.lengths.bin", "<i8")


def plot_lengths(data: TaskData, ax: Axes | None = None) -> Figure:
    """How long the rows of each split are, before any was cut: the share of rows of at most a length, up to the 99.5th
    percentile of train. The dashed line is where rows are cut.
    """
    with canvas(ax) as ax:
        columns = ["", "target"] if (data.folder / "train.target.lengths.bin").is_file() else [""]
        ends = []
        for style, column in zip(("-", ":"), columns):
            for colour, name in enumerate(SPLITS):
                lengths = np.sort(lengths_of(data, name, column))
                if len(lengths):
                    shares = np.arange(1, len(lengths) + 1) / len(lengths)
                    label = f"{name} {column}".strip()
                    ax.step(lengths, shares, style, where="post", color=f"C{colour}", label=label)
                if name == "train":
                    ends.append(np.quantile(lengths, 0.995))
        if not data.config.packs(data.task):
            ax.axvline(data.config.max_length, color="0.4", linestyle="--", linewidth=1)
            ends.append(data.config.max_length)
        ax.set(xlim=(0, 1.05 * max(ends)), ylim=(0, 1.02), xlabel="tokens of a row", ylabel="share of rows")
        ax.set_title("Rows of at most this length")
        ax.legend(loc="lower right")
        return ax.figure


def _sizes(data: TaskData) -> dict[str, dict]:
    return {name: size for name, size in data.metadata["splits"].items() if size["rows"] or size["empty"]}


def _counts(data: TaskData) -> Check:
    import pandas

    sizes = _sizes(data)
    rows = {
        name: {
            "rows": size["rows"],
            "without text, left out": size["empty"],
            "characters": size["characters"],
            "tokens": size["tokens"] + size.get("target_tokens", 0),
            "targets an epoch": getattr(data, name).targets,
        }
        for name, size in sizes.items()
    }
    empty = sum(size["empty"] for size in sizes.values())
    total = sum(size["rows"] for size in sizes.values())
    told = ", ".join(f"{size['rows']:,} {name}" for name, size in sizes.items())
    left = f"; {empty:,} rows without text are left out" if empty else ""
    status = "warn" if empty > CUT * total else "pass"
    return Check("rows", status, f"{told}{left}", pandas.DataFrame.from_dict(rows, orient="index"), critical=False)


def _quantiles(data: TaskData) -> pandas.DataFrame:
    import pandas

    rows = {}
    for name in _sizes(data):
        for column in ("", "target") if data.metadata["columns"].get("target") else ("",):
            lengths = lengths_of(data, name, column)
            if len(lengths):
                rows[f"{name} {column}".strip()] = np.quantile(lengths, QUANTILES).round().astype(int)
    return pandas.DataFrame.from_dict(rows, orient="index", columns=[f"{share:.0%}" for share in QUANTILES])


def _lengths(data: TaskData) -> Check:
    table = _quantiles(data)
    told = (
        f"half of the training rows have at most {table['50%'].iloc[0]:,} tokens, the longest {table['100%'].iloc[0]:,}"
    )
    return Check("lengths", "pass", told, table, plot_lengths(data), critical=False)


def _truncation(data: TaskData) -> Check:
    if data.config.packs(data.task):
        return Check(
            "truncation", "pass", f"none: rows are packed into blocks of {data.config.block_size}", critical=False
        )
    sizes = _sizes(data).values()
    rows = sum(size["rows"] for size in sizes)
    cut = sum(size["truncated"] for size in sizes)
    targets = sum(size.get("target_truncated", 0) for size in sizes)
    lost = sum(size["truncated_tokens"] for size in sizes) / max(
        1, sum(s["tokens"] + s["truncated_tokens"] for s in sizes)
    )
    longest = data.config.max_length
    told = f"{cut:,} of {rows:,} rows ({cut / rows:.1%}) are cut to {longest} tokens, and lose {lost:.1%} of all tokens"
    told += f"; {targets:,} targets are cut to {data.config.max_target_length or longest}" if targets else ""
    status = "warn" if max(cut, targets) > CUT * rows else "pass"
    return Check("truncation", status, told, critical=False)


def _padding(data: TaskData, batch_size: int) -> Check:
    split = data.train
    if not hasattr(split, "padding"):
        return Check("padding", "pass", "none but at the ends of the text", critical=False)
    share = split.padding(batch_size, seed=0)
    plain = split.padding(batch_size)
    told = f"{share:.1%} of the places in batches of {batch_size} hold padding ({plain:.1%} in the order of the rows)"
    return Check("padding", "warn" if share > PADDING else "pass", told, critical=False)


def _vocabulary(data: TaskData) -> Check:
    import pandas

    rows = {}
    for name, size in _sizes(data).items():
        tokens = size["tokens"] + size.get("target_tokens", 0)
        rows[name] = {"tokens": tokens, "unknown": size["unknown"], "share": size["unknown"] / max(1, tokens)}
    table = pandas.DataFrame.from_dict(rows, orient="index")
    worst, used = table["share"].max(), data.metadata["vocabulary_used"]
    told = (
        f"{worst:.2%} of the tokens are unknown at most; the training rows use {used:,} of"
        f" {data.metadata['vocab_size']:,} entries"
    )
    return Check("vocabulary", "warn" if worst > UNKNOWN else "pass", told, table, critical=False)


def _duplicates(data: TaskData) -> Check:
    import pandas

    from utils.data.duplicates import NEAR, SHINGLE

    found = data.metadata["duplicates"]
    table = pandas.DataFrame(found["between"])
    exact, near = int(table["exact"].sum()), int(table["near"].sum())
    done = "; they are left out" if found["dropped"] else ""
    told = (
        f"{exact:,} rows of validation and test are in an earlier split exactly, {near:,} nearly (at least {NEAR:.0%}"
        f" of their runs of {SHINGLE} words){done}; {found['repeated in train']:,} rows of train repeat another"
    )
    return Check("duplicates", "warn" if (exact or near) and not done else "pass", told, table, critical=False)


def _balance(data: TaskData) -> Check:
    import pandas

    names = data.classes
    counts = {
        split: size["classes"] + [0] * (len(names) - len(size["classes"])) for split, size in _sizes(data).items()
    }
    table = pandas.DataFrame(counts, index=list(names))
    train = table["train"]
    share = train.max() / train.sum()
    told = (
        f"{len(names)} classes; always saying {train.idxmax()!r} is right in {share:.1%} of the training rows; the"
        f" smallest, {train.idxmin()!r}, has {train.min():,}"
    )
    missing = [f"{name} in {split}" for split in table for name in table.index[table[split] == 0]]
    if missing:
        told += f"; without any row: {', '.join(missing[:5])}"
    status = "warn" if train.min() < RARE * train.max() or missing else "pass"
    return Check("class balance", status, told, table, critical=False)
