"""Run in a fresh process: loads what an export folder holds as a stranger would, and says what it computes.

    python -I -B parity_worker.py job.json

Imports nothing of this project, and sees to it that what it loads cannot either. Of each proof of the job it writes
`<name>.json` (an error, or what was found) and `<name>-<n>.npz` (the output of run n). Leaves out any judgement:
`publish.fresh` starts it, `publish.compare` judges.
"""

import hashlib
import inspect
import json
import statistics
import sys
import time
from pathlib import Path

import numpy


def main(job: dict) -> None:
    sys.path.extend(one for one in job["packages"] if one not in sys.path)
    for proof in job["proofs"]:
        forbid(proof["without"])
        try:
            found = ENGINES[proof["engine"]](proof, job)
        except Exception as error:  # whatever a damaged file makes its reader raise
            while error.__cause__ is not None:
                error = error.__cause__
            found = {"error": f"{type(error).__name__}: {' '.join(str(error).split())[:300]}"}
        found["modules"] = sorted({name.partition(".")[0] for name, module in sys.modules.items() if module})
        written = Path(job["out"]) / f"{proof['name']}.json"
        partial = written.with_suffix(".tmp")
        partial.write_text(json.dumps(found), encoding="utf-8")
        partial.rename(written)


def forbid(names: list) -> None:
    """From now on importing any of these raises ModuleNotFoundError, and importing others does not."""
    for name in [name for name, module in sys.modules.items() if module is None]:
        del sys.modules[name]
    for name in names:
        if name in sys.modules:
            raise RuntimeError(f"{name} is loaded already, where nothing is to see it.")
        sys.modules[name] = None


def run_all(proof: dict, job: dict, load) -> dict:
    """Every run of the job: `load(part, names)` gives a function from arrays by name to an array."""
    latency, loaded = [], {}
    for at, run in enumerate(job["runs"]):
        if run["part"] not in loaded:
            loaded[run["part"]] = load(run["part"], run["names"])
        call = loaded[run["part"]]
        with numpy.load(run["input"]) as file:
            inputs = dict(file)
        output = call(inputs)  # the first call is slower, and is not timed
        times = []
        for _ in range(job["calls"]):
            start = time.perf_counter()
            call(inputs)
            times.append(time.perf_counter() - start)
        numpy.savez(Path(job["out"]) / f"{proof['name']}-{at}.npz", output=output)
        latency.append(1000 * statistics.median(times))
    return {"latency": latency}


def onnx(proof: dict, job: dict) -> dict:
    import onnxruntime

    options = onnxruntime.SessionOptions()
    options.intra_op_num_threads = job["threads"]
    options.log_severity_level = 3  # errors

    def load(part, names):
        session = onnxruntime.InferenceSession(proof["graphs"][part], options, providers=["CPUExecutionProvider"])
        return lambda inputs: session.run(None, inputs)[0]

    return run_all(proof, job, load)


def with_torch(proof: dict, job: dict, load) -> dict:
    """As `run_all`, of functions of tensors by place."""
    import torch

    torch.set_num_threads(job["threads"])

    def arrays(part, names):
        call = load(part, names)

        def called(inputs):
            with torch.no_grad():
                return call(*(torch.from_numpy(inputs[name]) for name in names)).numpy()

        return called

    return run_all(proof, job, arrays)


def pt2(proof: dict, job: dict) -> dict:
    import torch

    return with_torch(proof, job, lambda part, names: torch.export.load(proof["graphs"][part]).module())


def torchscript(proof: dict, job: dict) -> dict:
    import torch

    return with_torch(proof, job, lambda part, names: torch.jit.load(proof["graphs"][part]))


def state_dict(proof: dict, job: dict) -> dict:
    import torch

    (path,) = proof["files"]
    return {"tensors": digests(torch.load(path, weights_only=True, map_location="cpu"))}


def safetensors(proof: dict, job: dict) -> dict:
    """Runs of the model that the weights make again, and digests of the tensors where their names are the model's."""
    found = {}
    if proof["loader"] == "ours":
        sys.path.insert(0, job["folder"])
        from model_code.load import load

        model = load(job["folder"])[0]
        found = with_torch(proof, job, lambda part, names: ours(model, proof["kind"], part))
    if proof["loader"] == "transformers":
        import transformers

        config = json.loads((Path(job["folder"]) / "config.json").read_text(encoding="utf-8"))
        model = getattr(transformers, config["architectures"][0]).from_pretrained(job["folder"]).float().eval()
        return with_torch(proof, job, lambda part, names: theirs(model, part, names))
    from safetensors.torch import load_file

    found["tensors"] = digests({name: one for path in proof["files"] for name, one in load_file(path).items()})
    return found


def ours(model, kind: str, part: str):
    """A part of one of our models, with its inputs by place."""
    import torch

    if part == "model":
        return model
    if kind == "vae":
        calls = {"encoder": lambda x: torch.stack(model.encode(x), 1), "decoder": lambda z: model.decode(z).cells()}
        return calls[part]
    return {"encoder": model.encode, "decoder": model.decode}[part]


def theirs(model, part: str, names: list):
    """A part of a model of transformers', with its inputs by place."""
    plain = {"use_cache": False} if "use_cache" in inspect.signature(model.forward).parameters else {}

    def call(*tensors):
        given = dict(zip(names, tensors))
        if part == "encoder":
            return model.get_encoder()(**given).last_hidden_state
        if part == "decoder":
            from transformers.modeling_outputs import BaseModelOutput

            given["encoder_outputs"] = BaseModelOutput(last_hidden_state=given.pop("encoder_hidden"))
        return model(**given, **plain).logits

    return call


def digests(tensors: dict) -> dict:
    """dtype, shape and sha256 of the bytes of each tensor, by name."""
    import torch

    found = {}
    for name, tensor in tensors.items():
        content = tensor.detach().contiguous().reshape(-1).view(torch.uint8).numpy()
        found[name] = [str(tensor.dtype), list(tensor.shape), hashlib.sha256(content).hexdigest()]
    return found


ENGINES = {"onnx": onnx, "pt2": pt2, "torchscript": torchscript, "state_dict": state_dict, "safetensors": safetensors}


if __name__ == "__main__":
    main(json.loads(Path(sys.argv[1]).read_text(encoding="utf-8")))
