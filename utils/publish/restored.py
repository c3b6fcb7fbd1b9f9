"""The state of a pulled model, as a checkpoint of its family holds it: from safetensors, pickled only where trusted.

Leaves out the fetching and the checksums (`publish.pulled`).
"""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any

from utils.core.checkpoints import Checkpoints
from utils.publish.errors import HubError
from utils.publish.weights import SAFETENSORS, START, STATE_DICT

if TYPE_CHECKING:
    import torch

PPO = "PPO"  # the family whose checkpoints hold a policy: a model and a value, which is not published


def restore(
    run: Path, folder: Path, metadata: Mapping[str, Any], here: list[str], repo_id: str, *, trust: bool
) -> None:
    """Write the checkpoint of a pulled run from the files `here` in `folder`; and what PPO began with, if it came."""
    state = {"model": _weights(folder, metadata, here, repo_id, trust=trust)}
    data = (metadata.get("run") or {}).get("data")
    if data:
        state["data"] = str(data)
    found = (metadata.get("metrics") or {}).get("validation/loss")
    loss = found.get("value") if isinstance(found, Mapping) else found
    Checkpoints(run / "checkpoints").save(int(metadata["step"]), state, loss if isinstance(loss, float) else None)
    if metadata["family"] == PPO and START in here:
        kept = Checkpoints(run / "checkpoints" / "reference", keep_last=1)
        kept.folder.mkdir()
        kept.save(0, read_safetensors(folder / START))


def _weights(
    folder: Path, metadata: Mapping[str, Any], here: list[str], repo_id: str, *, trust: bool
) -> dict[str, torch.Tensor]:
    """The state dict of the model as the run's own code has it."""
    import torch

    bare = metadata["loader"] == "ours" or metadata["family"] == PPO
    wrapped = "" if bare else "model."  # models.called.Called holds a model from elsewhere
    if STATE_DICT in here and trust:
        state = torch.load(folder / STATE_DICT, map_location="cpu", weights_only=True)
    elif not any(name.endswith(".safetensors") and "/" not in name for name in here):
        raise HubError(
            f"{repo_id} has no {SAFETENSORS}, and other weights are read from trusted repositories alone: pull it"
            " with trust=True if you trust its owner."
        )
    elif metadata["loader"] == "transformers":
        from utils.models import huggingface

        found = huggingface.find_folder(folder)
        state = huggingface.load(found, overrides={}, kind=metadata["kind"]).model.state_dict()
    else:
        state = read_safetensors(folder / SAFETENSORS)
    return {f"{wrapped}{name}": value for name, value in state.items()}


def read_safetensors(path: Path) -> dict[str, torch.Tensor]:
    """Names to tensors; a tied one, stored once, under all of its names, as `save_model` noted them."""
    from safetensors import SafetensorError, safe_open

    try:
        with safe_open(str(path), framework="pt", device="cpu") as file:
            state = {name: file.get_tensor(name) for name in file.keys()}  # noqa: SIM118 (no mapping)
            tied = file.metadata() or {}
    except SafetensorError as error:
        raise HubError(f"{path.name} cannot be read as safetensors: {error}.") from None
    return state | {name: state[kept] for name, kept in tied.items() if kept in state and name not in state}
