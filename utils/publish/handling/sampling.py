"""`Bounds` of one request, and `Sampling`: how its text is generated."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

from .checks import BadRequest, flag, known, number, shown

SEEDS = 2**63 - 1
COLDEST = 1e-4  # temperature; logits divided by a colder one overflow


@dataclass(frozen=True)
class Bounds:
    """What one request may ask for."""

    inputs: int = 32
    prompt_tokens: int | None = None
    """None: as many as the model reads at once"""
    prompt_characters: int = 100_000
    new_tokens: int = 1024
    samples: int = 64
    """grids of a VAE"""


@dataclass(frozen=True)
class Sampling:
    """How text is generated. Greedy, unless `do_sample` is true or a temperature, top_k or top_p is given."""

    max_new_tokens: int = 100
    do_sample: bool = False
    temperature: float = 1.0
    top_k: int | None = None
    top_p: float | None = None
    repetition_penalty: float = 1.0
    seed: int | None = None
    """of every input's own generator; None: drawn, and told in the details"""
    stop: tuple[str, ...] = ()
    """texts that end the result, and are left off it"""
    truncate: int | None = None
    """the last tokens of the prompt that are read; None: a longer prompt than the model reads is an error"""
    return_full_text: bool = False
    details: bool = False

    @classmethod
    def read(cls, given: dict[str, Any], most: int) -> Sampling:
        """From the `parameters` of a request. Raises `BadRequest`."""
        given = known(given, cls.__dataclass_fields__, also=("decoder_input_details",))
        if given.pop("decoder_input_details", False):
            raise BadRequest("decoder_input_details=true came, but log-probabilities of the prompt are not given here.")
        values: dict[str, Any] = {}
        for name, (low, high, whole) in {
            "max_new_tokens": (1, most, True),
            "temperature": (0, 100, False),
            "top_k": (1, 2**31, True),
            "top_p": (0, 1, False),
            "repetition_penalty": (0.01, 100, False),
            "seed": (0, SEEDS, True),
            "truncate": (1, 2**31, True),
        }.items():
            if name in given:
                values[name] = number(name, given[name], low, high, whole=whole)
        values |= {name: flag(name, given[name]) for name in ("return_full_text", "details") if name in given}
        if values.get("top_p") == 0:
            raise BadRequest("top_p=0 leaves no token; expected more than 0, up to 1.")
        stop = given.get("stop", [])
        if not isinstance(stop, list) or len(stop) > 16 or not all(isinstance(one, str) and one for one in stop):
            raise BadRequest(f"stop={shown(stop)}; expected a list of at most 16 texts that are not empty.")
        asked = [name for name in ("temperature", "top_k", "top_p") if name in values]
        sample = flag("do_sample", given["do_sample"]) if "do_sample" in given else bool(asked)
        if not sample and asked and "do_sample" in given:
            raise BadRequest(
                f"do_sample=false takes the likeliest token, and does not read {', '.join(asked)}: drop one."
            )
        if values.get("temperature") == 0:  # the likeliest token
            sample, values["temperature"] = False, 1.0
        if values.get("temperature", 1.0) < COLDEST:
            raise BadRequest(
                f"temperature={values['temperature']}; expected at least {COLDEST}, or 0: the likeliest token, always."
            )
        values.setdefault("max_new_tokens", min(cls.max_new_tokens, most))
        return cls(**values, do_sample=sample, stop=tuple(stop))
