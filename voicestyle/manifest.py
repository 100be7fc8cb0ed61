"""`bundle.json`: what a bundle says about itself."""

import json
from collections.abc import Mapping
from dataclasses import asdict, dataclass, field, fields, replace
from pathlib import Path
from typing import Any, TypeVar

from voicestyle.errors import BundleError
from voicestyle.options import FORMATS, OUTPUTS, Options, Settings, bad_option
from voicestyle.presets import DEFAULT, PRESETS

Number = TypeVar("Number", int, float)

MANIFEST = "bundle.json"
FORMAT = 2
INSTANCE_CHOICES = ("first", "nearest", "weighted")
EMBEDDINGS = "face_embeddings.npy"
FILES = (
    "voice_encoder.pt",
    "face_encoder.pt",
    "generator.pt",
    "prototypes.faiss",
    "latent_bank.npy",
    "assignments.npy",
)


@dataclass(frozen=True)
class Limits:
    """What a request may cost: steps, seconds of audio, previews, and the least seconds of speech it must bring."""

    steps: int = 500
    audio_seconds: float = 120.0
    min_speech_seconds: float = 0.5
    previews: int = 16


@dataclass(frozen=True)
class Caps:
    """A service's own limits, each of which counts where it is below the bundle's; None sets none."""

    steps: int | None = None
    audio_seconds: float | None = None
    size: int | None = None
    previews: int | None = None


@dataclass(frozen=True)
class Manifest:
    """The description of a bundle.

    image_size is the size in pixels at which the optimisation runs, encoder_size the face encoder's input,
    sizes those that the generator renders. `nearest` prototypes are looked up per voice, and the first latent
    is the mean of `instances` latents that belong to them: the first ones, as published, or the nearest to the
    voice, for which the bundle holds face embeddings, weighted by their nearness or not. empty_prototypes have no
    latent: published memories know such. learning_rate is the base rate of the optimisation, 0.01 as published.
    files maps each file to its sha256.
    """

    name: str
    version: str
    licence: str
    sources: tuple[str, ...]
    card: str
    image_size: int
    encoder_size: int
    sizes: tuple[int, ...]
    embedding_dim: int
    latent_dim: int
    latent_std: float
    prototypes: int
    prototype_level: int
    nearest: int
    instances: int
    instance_choice: str
    learning_rate: float
    default_steps: int
    default_seed: int
    default_size: int
    empty_prototypes: int = 0
    limits: Limits = field(default_factory=Limits)
    files: Mapping[str, str] = field(default_factory=dict[str, str])
    format: int = FORMAT

    def __post_init__(self) -> None:
        if self.format != FORMAT:
            raise BundleError(f"{MANIFEST}: format must be {FORMAT}, got {self.format}; build the bundle anew")
        if self.default_size not in self.sizes:
            raise BundleError(f"{MANIFEST}: default_size must be one of {list(self.sizes)}, got {self.default_size}")
        if not 1 <= self.default_steps <= self.limits.steps:
            raise BundleError(f"{MANIFEST}: default_steps must be 1 to {self.limits.steps}, got {self.default_steps}")
        if self.instance_choice not in INSTANCE_CHOICES:
            choices = ", ".join(INSTANCE_CHOICES)
            raise BundleError(f"{MANIFEST}: instance_choice must be one of {choices}, got {self.instance_choice}")
        if not 1 <= self.nearest <= self.prototypes:
            raise BundleError(f"{MANIFEST}: nearest must be 1 to {self.prototypes}, got {self.nearest}")
        if not 0 <= self.empty_prototypes < self.prototypes:
            raise BundleError(
                f"{MANIFEST}: empty_prototypes must be 0 to {self.prototypes - 1}, got {self.empty_prototypes}"
            )

    @property
    def file_names(self) -> tuple[str, ...]:
        """The files of this bundle beside its manifest."""
        return FILES if self.instance_choice == "first" else (*FILES, EMBEDDINGS)

    def resolve(self, options: Options) -> Settings:
        """`options` with bundle's and preset's defaults filled in. Raises InputError bad_option beyond its limits."""
        preset = options.preset or DEFAULT
        steps = PRESETS[preset].steps(self.default_steps) if options.steps is None else options.steps
        seed = self.default_seed if options.seed is None else options.seed
        size = self.default_size if options.size is None else options.size
        if steps > self.limits.steps:
            raise bad_option(f"steps must be 1 to {self.limits.steps}, got {steps}")
        if size not in self.sizes:
            raise bad_option(f"size must be one of {', '.join(map(str, self.sizes))}, got {size}")
        previews = options.previews or 0
        if previews > self.limits.previews:
            raise bad_option(f"previews must be 0 to {self.limits.previews}, got {previews}")
        if previews >= steps:
            raise bad_option(f"previews must be fewer than the {steps} steps, got {previews}")
        return Settings(
            steps=steps,
            preset=preset,
            seed=seed,
            size=size,
            format=options.format or FORMATS[0],
            output=options.output or OUTPUTS[0],
            previews=previews,
        )

    def capped(self, caps: Caps) -> "Manifest":
        """This manifest with a service's limits; a default beyond them becomes the most they allow.

        Raises BundleError where no size of the bundle is within `caps.size`.
        """
        sizes = tuple(size for size in self.sizes if caps.size is None or size <= caps.size)
        if not sizes:
            raise BundleError(
                f"the bundle makes faces of {min(self.sizes)} pixels at least; the service allows size {caps.size}"
            )
        limits = replace(
            self.limits,
            steps=_lower(self.limits.steps, caps.steps),
            audio_seconds=_lower(self.limits.audio_seconds, caps.audio_seconds),
            previews=_lower(self.limits.previews, caps.previews),
        )
        return replace(
            self,
            sizes=sizes,
            default_size=self.default_size if self.default_size in sizes else max(sizes),
            default_steps=min(self.default_steps, limits.steps),
            limits=limits,
        )

    def to_json(self) -> str:
        """The text of bundle.json."""
        return json.dumps(asdict(self), indent=1, ensure_ascii=False) + "\n"

    @classmethod
    def read(cls, folder: Path) -> "Manifest":
        """The manifest of a bundle folder. Raises BundleError for anything but exactly the known fields."""
        path = folder / MANIFEST
        try:
            values: dict[str, Any] = json.loads(path.read_text(encoding="utf-8"))
        except FileNotFoundError:
            raise BundleError(f"no bundle in {folder}: {MANIFEST} is missing") from None
        except (UnicodeDecodeError, json.JSONDecodeError) as error:
            raise BundleError(f"{path} is not JSON: {error}") from None
        known = {item.name for item in fields(cls)}
        if missing := known - set(values):
            raise BundleError(f"{path} lacks {', '.join(sorted(missing))}")
        if unknown := set(values) - known:
            raise BundleError(f"{path} has unknown fields {', '.join(sorted(unknown))}")
        try:
            values["limits"] = Limits(**values["limits"])
        except TypeError as error:
            raise BundleError(f"{path}: limits do not fit: {error}") from None
        for name in ("sources", "sizes"):
            values[name] = tuple(values[name])
        return cls(**values)


def _lower(own: Number, cap: Number | None) -> Number:
    return own if cap is None else min(own, cap)
