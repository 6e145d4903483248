"""What may stand beside a synthetic volume: that it is synthetic, and where its label map comes from.

The chain of a label map must end in a source that the run declares public (DESIGN §4.5), and so must that of
every donor of a lesion; recipes must be declared beside them. Unknown counts as private.
"""

from __future__ import annotations

import json
import math
import re
from typing import Annotated, Any, Literal

from pydantic import BaseModel, ConfigDict, Field, ValidationError

from ...common.errors import PolicyRefused, VerificationFailed
from ...common.labels.chain import LabelChain, PublicSources, Sha256

_PARAMETER_WORD = re.compile(r"[a-z][a-z_]{0,31}")
"""Names and kinds among parameters; without digits, so that no identifier passes for one."""


class Sidecar(BaseModel):
    """The JSON file beside a synthetic volume; nothing else may stand in it.

    Attributes:
        synthetic: Always true.
        generator_sha256: Of the ``generator.safetensors`` that made the volume.
        label_chain: Where its label map comes from.
        noise_seed: Of the generator's noise.
        skull_stripped: Whether the image was found to be, which BIDS wants of every derived image and no label map; set
            when a release is packed.
    """

    model_config = ConfigDict(extra="forbid", frozen=True)

    synthetic: Literal[True] = Field(alias="Synthetic")
    generator_sha256: Sha256 = Field(alias="GeneratorSha256")
    label_chain: LabelChain = Field(alias="LabelChain")
    noise_seed: Annotated[int, Field(ge=0)] = Field(alias="NoiseSeed")
    skull_stripped: bool | None = Field(default=None, alias="SkullStripped", strict=True)

    def encode(self) -> bytes:
        """The file's bytes."""
        unknown = {"skull_stripped"} if self.skull_stripped is None else set()
        content = self.model_dump(mode="json", by_alias=True, exclude=unknown)
        return (json.dumps(content, indent=2, sort_keys=True) + "\n").encode()


def parse_sidecar(content: bytes, generator_sha256: str, public: PublicSources) -> Sidecar:
    """Parse and judge one sidecar.

    Args:
        content: The file.
        generator_sha256: Of the generator that is released or audited.
        public: The sources that the run declares public.

    Raises:
        PolicyRefused: no chain, or one that does not end in a declared public source.
        VerificationFailed: not synthetic, another generator's, or with anything else in it. Nothing
            of the content is quoted.
    """
    try:
        sidecar = Sidecar.model_validate_json(content)
    except ValidationError as error:
        places = {str(found["loc"][0]) for found in error.errors(include_url=False) if found["loc"]}
        if "LabelChain" in places:
            raise _refused("a volume whose label map has no readable chain, which counts as private") from None
        known = sorted(places & {"Synthetic", "GeneratorSha256", "NoiseSeed"})
        raise _unfit(
            f"a sidecar with {' and '.join(known) + ' missing or wrong' if known else 'other entries'}"
        ) from None
    if sidecar.generator_sha256 != generator_sha256:
        raise _unfit("a volume made by another generator")
    problem = _chain_problem(sidecar.label_chain, public)
    if problem:
        raise _refused(problem)
    steps = (step for chain in sidecar.label_chain.chains() for step in chain.steps)
    if not all(_is_plain(step.parameters) for step in steps):
        raise _unfit("a label chain whose parameters hold text")
    return sidecar


def parse_public_sources(content: bytes) -> PublicSources:
    """Parse ``public-labels.json``.

    Raises:
        PolicyRefused: not such a file, no source, or one that is not public.
    """
    try:
        public = PublicSources.model_validate_json(content)
    except ValidationError:
        raise _refused("a run without a readable list of its public label sources") from None
    if not public.sources or any(source.kind != "public" for source in public.sources):
        raise _refused("a list of public label sources that is empty or names a private one")
    return public


def _chain_problem(chain: LabelChain, public: PublicSources) -> str | None:
    if not chain.is_public:
        return "a volume made from a private label map"
    if not set(chain.sources()) <= set(public.sources):
        return "a volume whose label map comes from a source that the run does not declare public"
    if not set(chain.recipes()) <= set(public.recipes):
        return "a volume whose label map was edited by a recipe that the run does not declare"
    return None


def _is_plain(value: Any) -> bool:
    """Numbers, lists of them, and plain words: what deformations and lesions are drawn as."""
    match value:
        case bool() | int() | None:
            return True
        case float():
            return math.isfinite(value)
        case str():
            return bool(_PARAMETER_WORD.fullmatch(value))
        case list() | tuple():
            return all(map(_is_plain, value))
        case dict():
            return all(_is_plain(key) and _is_plain(entry) for key, entry in value.items())
        case _:
            return False


def _refused(found: str) -> PolicyRefused:
    return PolicyRefused(
        found,
        expected="label maps that all end in a source declared in public-labels.json",
        remedy="Generate the volumes anew from the public sampler ('fedphantom generate --sample').",
    )


def _unfit(found: str) -> VerificationFailed:
    return VerificationFailed(
        found,
        expected="sidecars as 'fedphantom generate' writes them, all from the audited generator",
        remedy="Generate the volumes anew from this run's generator.",
    )
