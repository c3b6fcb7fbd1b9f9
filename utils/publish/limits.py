"""`Limits`: what the server takes on, of one request and of all together."""

from __future__ import annotations

from pydantic import Field

from utils.core.config import Config


class Limits(Config):
    """Beyond a limit a request is refused, and told which."""

    body_bytes: int = Field(2**20, ge=1)
    """bytes of a request's body; more: 413"""
    body_seconds: float = Field(10, gt=0)
    """until a request's body is there; longer: 408"""
    inputs: int = Field(32, ge=1)
    """texts of one request"""
    prompt_characters: int = Field(100_000, ge=1)
    """characters of a text, counted before it is tokenised"""
    prompt_tokens: int | None = Field(None, ge=1)
    """tokens of a text; None: as many as the model reads at once"""
    new_tokens: int = Field(1024, ge=1)
    """tokens to generate for one text"""
    samples: int = Field(64, ge=1)
    """grids of one request to a VAE"""
    batch_size: int = Field(16, ge=1)
    """texts or grids computed together; one request with more has a batch to itself"""
    batches: int = Field(4, ge=1)
    """batches that generate in turns, a token each; so a long one does not hold up those behind it"""
    queue: int = Field(64, ge=1)
    """requests that may wait; more: 429"""
    seconds: float = Field(60, gt=0)
    """from a request's arrival to the end of its answer; still waiting then: 503, computing: 504"""
    stop_seconds: float = Field(30, ge=0)
    """for running requests to finish when the server is told to stop"""
