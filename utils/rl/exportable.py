"""`exportable_of` a run of `rl.recipes`: the policy as the causal language model that it is, without its value.

Leaves out what is written of it (`publish`).
"""

from __future__ import annotations

from pathlib import Path

import torch
from torch import Tensor, nn

from utils.arc.grids import SIDE
from utils.core.run import Run
from utils.models.exportable import Exportable
from utils.rl.hf_tokenizer import HFTokenizer
from utils.rl.judgement import AFTER
from utils.rl.pieces import Pieces
from utils.rl.recipes import Trained, open_trained
from utils.rl.reference import kept_in
from utils.rl.tiny import PARTS, GridGPT, views_of
from utils.rl.vocabulary import PieceTokenizer
from utils.training.exportable import described, metrics_at, named, origin_of, results
from utils.training.text_parts import Rows, text_parts


def exportable_of(run: Run | Path, *, license: str = "") -> Exportable:
    """What publishing needs of a PPO run: the model that writes programs, its tokenizer saved into the run.

    The weights are those of the best checkpoint, on the CPU in fp32; adapters are merged into the model.
    """
    trained = open_trained(run.path if isinstance(run, Run) else run)
    recipe, policy = trained.recipe, trained.policy
    model = merged(policy.actor.model).float().eval()
    folder = trained.run.path / "tokenizer"
    save_tokenizer(policy.tokenizer, folder)
    rows = Rows(policy.tokenizer.vocab_size, policy.actor.context_length)
    graph = Unbranched.of(model) if isinstance(model, GridGPT) else model
    named = {"tiny": "", "smollm2": "smollm2", "hub": f"hf:{recipe.policy.model}"}[recipe.policy.kind]
    return Exportable(
        run=trained.run,
        name=recipe.name,
        family=recipe.family,
        kind="causal_lm",
        step=trained.update,
        origin=origin_of(named, recipe.policy.revision),
        tokenizer=folder,
        metrics=metrics_at(trained.run, trained.update) | judged(trained),
        parts=text_parts(graph, "causal_lm", rows),
        license=license,
        start=start_of(trained),
        note=trained.note,
        **described(model),
    )


def judged(trained: Trained) -> dict[str, float | dict[str, float]]:
    """Rates on the test tasks, with 95% intervals over tasks; {} where the run's evaluation judged other weights."""
    content = results(trained.run)
    if content.get("update") != trained.update:
        return {}
    return named({"test": content["results"][AFTER]["rates"]})


def start_of(trained: Trained) -> dict[str, Tensor]:
    """What `ppo evaluate` compares with: of a tiny policy without adapters, whose names stay, the run's reference."""
    if trained.recipe.policy.kind != "tiny" or trained.recipe.policy.lora is not None:
        return {}
    start = kept_in(trained.run).last()
    return {} if start is None else start.load()


def save_tokenizer(tokenizer: PieceTokenizer | HFTokenizer, folder: Path) -> None:
    """Write what `publish.loading` or `data.tokenizers.load_tokenizer` reads."""
    folder.mkdir(exist_ok=True)
    if isinstance(tokenizer, HFTokenizer):
        tokenizer.inner.save_pretrained(folder)
    else:
        Pieces(tokenizer.names).save(folder)


def merged(model: nn.Module) -> nn.Module:
    """The model with peft's adapters, where it has some, added to the layers that they stand beside; in place."""
    layers = [name for name, layer in model.named_modules() if hasattr(layer, "lora_A") and hasattr(layer, "merge")]
    for name in layers:
        layer = model.get_submodule(name)
        layer.merge()
        parent, _, own = name.rpartition(".")
        setattr(model.get_submodule(parent), own, layer.get_base_layer())
    return model


class Unbranched(GridGPT):
    """The tiny policy without a question that no graph can ask: whether any token is part of a grid. Equal numbers."""

    @classmethod
    def of(cls, model: GridGPT) -> Unbranched:
        """The same model, on the very same weights."""
        made = cls(model.config)
        made.load_state_dict(model.state_dict(), assign=True)
        made.head.weight = made.embedding.weight if model.config.tie_embeddings else made.head.weight
        return made.eval()

    def embed(self, input_ids: Tensor) -> Tensor:
        x = self.embedding(input_ids)
        row, column, part, inside = coordinates(input_ids)
        places = self.rows(row) + self.columns(column) + self.parts(part)
        numbers = views_of(input_ids, row, column, part, inside)  # (B, T, 8); the last stands for none, which is 0
        views = self.views.weight[numbers] * (numbers != self.views.padding_idx).unsqueeze(-1)
        return x + places * inside.unsqueeze(-1) + views.sum(2)


def coordinates(input_ids: Tensor) -> tuple[Tensor, Tensor, Tensor, Tensor]:
    """As `tiny.coordinates`, without running maxima, which ONNX has not: each is the largest value so far."""
    ids = PieceTokenizer
    end, mark = input_ids == ids.row_id, (input_ids == ids.mark_ids[0]) | (input_ids == ids.mark_ids[1])
    inside = end | ((input_ids >= ids.first_cell) & (input_ids < ids.row_id))
    place = torch.arange(input_ids.shape[1], device=input_ids.device)
    earlier = place < place[:, None]  # (T, T): of a token, those before it
    last_break = torch.where((end | mark)[:, None] & earlier, place, -1).amax(2)
    column = place - last_break - 1
    ends = end.long().cumsum(1)
    so_far = place <= place[:, None]
    at_mark = torch.where(mark[:, None] & so_far, ends[:, None], 0).amax(2)
    row = ends - end.long() - at_mark
    part = (mark.long().cumsum(1) - 1).clamp(min=0)
    limits = (SIDE - 1, SIDE, PARTS - 1)
    row, column, part = ((one * inside).clamp(0, limit) for one, limit in zip((row, column, part), limits))
    return row, column, part, inside
