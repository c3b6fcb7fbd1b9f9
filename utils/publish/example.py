"""`load_example.py` of an export folder: a few lines that load what is there and use it, for the model at hand.

Leaves out answering requests (`publish.handler`).
"""

from __future__ import annotations

from pathlib import Path

from utils.models.exportable import Exportable
from utils.models.huggingface import AUTO

DOES = {
    "causal_lm": "goes on with a prompt",
    "masked_lm": "guesses the masked token of a text",
    "seq2seq": "answers a text with a text",
    "classifier": "classifies a text",
    "vae": "draws a grid, encodes it and decodes it again",
}


def example_for(exportable: Exportable, folder: Path, text: str) -> str:
    """The program, for an export folder with its formats in it. `text` is what it reads where it is given none."""
    kind = exportable.kind
    usage = "" if kind == "vae" or exportable.loader == "weights" else " [TEXT]"
    does = "runs it on token ids" if exportable.loader == "weights" else DOES[kind]
    told = f'"""Loads the model of this folder and {does}: python load_example.py{usage}"""\n\n'
    if exportable.loader == "weights":
        return told + _graph(exportable, folder)
    chosen = "" if kind == "vae" else f"\ntext = sys.argv[1] if len(sys.argv) > 1 else {text!r}\n"
    if exportable.loader == "transformers":
        return told + _TRANSFORMERS.format(auto=AUTO[kind]) + chosen + _WITH_TRANSFORMERS[kind]
    more = _OURS_IMPORTS.get(kind, "")
    return told + _OURS.format(torch=_TORCH[kind], more=more) + chosen + _WITH_OURS[kind]


_OURS = """\
import sys
from pathlib import Path
{torch}
FOLDER = Path(__file__).resolve().parent
sys.dont_write_bytecode = True  # the folder holds what metadata.json lists, and nothing else
sys.path.insert(0, str(FOLDER))

{more}from model_code.load import load

model, tokenizer, metadata = load(FOLDER)
"""
_TORCH = {**dict.fromkeys(DOES, "\nimport torch\n"), "causal_lm": ""}
_SPECIAL = "from model_code.data.special import special_of\n"
_OURS_IMPORTS = {
    "causal_lm": "from model_code.models.generate import SamplingConfig, generate\n",
    "masked_lm": _SPECIAL,
    "seq2seq": _SPECIAL,
    "classifier": _SPECIAL,
}
_WITH_OURS = {
    "causal_lm": """\
print(text + generate(model, tokenizer, text, SamplingConfig(max_new_tokens=60)))
""",
    "masked_lm": """\
special = special_of(tokenizer)
ids = special.around(tokenizer.encode(text), longest=metadata["limits"]["context_length"])
place = len(ids) // 2
ids[place] = special.mask
with torch.no_grad():
    likeliest = model(torch.tensor(ids)[None])[0, place].topk(5).indices
print(tokenizer.decode(ids), "->", [tokenizer.decode([one]) for one in likeliest.tolist()])
""",
    "seq2seq": """\
special, longest = special_of(tokenizer), metadata["limits"]["context_length"]
source = torch.tensor(special.around(tokenizer.encode(text), longest=longest))[None]
made = [metadata["special"]["decoder_start"]]
with torch.no_grad():
    memory = model.encode(source)
    while len(made) < longest and made[-1] != special.end:
        made.append(int(model.decode(torch.tensor([made]), memory)[0, -1].argmax()))
print(text, "->", tokenizer.decode([one for one in made[1:] if one != special.end]))
""",
    "classifier": """\
ids = special_of(tokenizer).around(tokenizer.encode(text), longest=metadata["limits"]["context_length"])
with torch.no_grad():
    shares = model(torch.tensor(ids)[None])[0].softmax(-1).tolist()
for name, share in sorted(zip(metadata["classes"], shares), key=lambda pair: -pair[1]):
    print(f"{share:.3f}  {name}")
""",
    "vae": """

def show(canvas):
    \"\"\"The cells of a grid as rows of digits; 10 is outside.\"\"\"
    print("\\n".join("".join(map(str, row[row < 10].tolist())) for row in canvas if row[0] < 10), end="\\n\\n")


with torch.no_grad():
    grids = model.sample(1, generator=torch.Generator().manual_seed(0))  # (1, 30, 30)
    mean, _ = model.encode(grids)
    show(grids[0])
    show(model.decode(mean).mode[0])
""",
}
_TRANSFORMERS = """\
import json
import sys
from pathlib import Path

import torch
from transformers import {auto}, AutoTokenizer

FOLDER = Path(__file__).resolve().parent
metadata = json.loads((FOLDER / "metadata.json").read_text(encoding="utf-8"))
tokenizer = AutoTokenizer.from_pretrained(FOLDER)
model = {auto}.from_pretrained(FOLDER).eval()
"""
_READ = """\
inputs = tokenizer(text, return_tensors="pt", return_token_type_ids=False)
"""
_WITH_TRANSFORMERS = {
    "causal_lm": """\
inputs = tokenizer(text, return_tensors="pt", return_token_type_ids=False, add_special_tokens=False)
room = (metadata["limits"]["context_length"] or 1024) - inputs["input_ids"].shape[1]
options = {"max_new_tokens": max(1, min(60, room)), "do_sample": False, "pad_token_id": metadata["special"]["padding"]}
with torch.no_grad():
    output = model.generate(**inputs, **options)
print(tokenizer.decode(output[0]))
""",
    "masked_lm": _READ
    + """\
place = inputs["input_ids"].shape[1] // 2
inputs["input_ids"][0, place] = metadata["special"]["mask"]
with torch.no_grad():
    likeliest = model(**inputs).logits[0, place].topk(5).indices
print(tokenizer.decode(inputs["input_ids"][0]), "->", [tokenizer.decode([one]) for one in likeliest.tolist()])
""",
    "seq2seq": _READ
    + """\
options = {"max_new_tokens": 60, "do_sample": False, "decoder_start_token_id": metadata["special"]["decoder_start"]}
with torch.no_grad():
    output = model.generate(**inputs, **options)
print(text, "->", tokenizer.decode(output[0], skip_special_tokens=True))
""",
    "classifier": _READ
    + """\
with torch.no_grad():
    shares = model(**inputs).logits[0].softmax(-1).tolist()
for name, share in sorted(zip(metadata["classes"], shares), key=lambda pair: -pair[1]):
    print(f"{share:.3f}  {name}")
""",
}


def _graph(exportable: Exportable, folder: Path) -> str:
    """Runs the graph that is there, of a model whose code is not; of weights alone it lists the names."""
    part = exportable.parts[0]
    sizes = {name: tuple(value.shape) for name, value in part.inputs.items()}
    top = "from pathlib import Path\n\n{imports}\n\nFOLDER = Path(__file__).resolve().parent\n"

    def ones(call: str, kind: str) -> str:
        return "{" + ", ".join(f'"{name}": {call}({size}, dtype={kind})' for name, size in sizes.items()) + "}"

    in_torch = ones("torch.ones", "torch.long")
    if (folder / f"{part.name}.onnx").is_file():
        return top.format(imports="import numpy\nimport onnxruntime") + (
            f'session = onnxruntime.InferenceSession(FOLDER / "{part.name}.onnx", providers=["CPUExecutionProvider"])\n'
            f"inputs = {ones('numpy.ones', 'numpy.int64')}\n(output,) = session.run(None, inputs)\n"
            'print("output", output.shape, "likeliest", output.argmax(-1).tolist())\n'
        )
    shown = 'with torch.no_grad():\n    output = model(*inputs.values())\nprint("output", tuple(output.shape))\n'
    if (folder / f"{part.name}.pt2").is_file():
        load = f'model = torch.export.load(FOLDER / "{part.name}.pt2").module()\n'
        return top.format(imports="import torch") + load + f"inputs = {in_torch}\n" + shown
    if (folder / f"{part.name}.torchscript.pt").is_file():
        load = f'model = torch.jit.load(str(FOLDER / "{part.name}.torchscript.pt"))\n'
        return top.format(imports="import torch") + load + f"inputs = {in_torch}\n" + shown
    return top.format(imports="import torch\nfrom safetensors.torch import load_file") + (
        'file = FOLDER / "model.safetensors"\n'
        'weights = load_file(file) if file.is_file() else torch.load(FOLDER / "state_dict.pt", weights_only=True)\n'
        "for name, value in weights.items():\n    print(name, tuple(value.shape))\n"
    )
