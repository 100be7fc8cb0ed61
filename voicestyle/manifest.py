"""`bundle.json`: the description of a bundle."""

import json
import math
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Annotated, TypeVar

import msgspec
from msgspec import Meta, Struct, structs

from voicestyle.errors import BundleError
from voicestyle.options import FORMATS, OUTPUTS, Options, Settings, bad_option, nearest
from voicestyle.presets import DEFAULT, INSTANT, PRESETS

Number = TypeVar("Number", int, float)
Count = Annotated[int, Meta(ge=1)]

MANIFEST = "bundle.json"
FORMAT = 4
INSTANCE_CHOICES = ("first", "nearest", "weighted")
FRONT_ENDS = ("log_mel", "own")
FIRST_LATENTS = ("prototypes", "map")
PRIOR_CENTRES = ("first", "bank")
EMBEDDINGS = "face_embeddings.npy"
FRONT_END = "front_end.pt"
LATENT_MAP = "latent_map.npz"
LATENT_PRIOR = "latent_prior.npz"
MAPPER = "mapper.pt"
BANK_PARTS = (LATENT_MAP, LATENT_PRIOR, MAPPER)  # optional files that fit one latent bank alone
FILES = (
    "voice_encoder.pt",
    "face_encoder.pt",
    "generator.pt",
    "prototypes.faiss",
    "latent_bank.npy",
    "assignments.npy",
)


class Limits(Struct, frozen=True, forbid_unknown_fields=True):
    """What a request may cost: steps, seconds of audio and previews; and the seconds of speech that it must contain."""

    steps: Count = 500
    audio_seconds: float = 120.0
    min_speech_seconds: float = 0.5
    previews: Annotated[int, Meta(ge=0)] = 16


class Caps(Struct, frozen=True):
    """A service's own limits; each applies where it is below the bundle's. None sets none."""

    steps: int | None = None
    audio_seconds: float | None = None
    size: int | None = None
    previews: int | None = None


class Prior(Struct, frozen=True, forbid_unknown_fields=True):
    """What keeps the optimisation near likely latents; its numbers are in latent_prior.npz.

    weight: of the distance between the latent and its centre in the loss, at least 0. centre: `first` is the first
    latent of the voice, `bank` the mean of the latent bank. hold: whether a step leaves the latent's components along
    the held directions as they are in the first latent.

    Raises BundleError for another weight or centre.
    """

    weight: float
    centre: str = "first"
    hold: bool = False

    def __post_init__(self) -> None:
        if not 0 <= self.weight < math.inf:
            raise BundleError(f"weight of the prior must be a finite number of at least 0, got {self.weight}")
        _check_choice("centre of the prior", self.centre, PRIOR_CENTRES)


class Manifest(Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """The description of a bundle.

    image_size: width and height in pixels at which the optimisation runs. encoder_size: those of the face encoder's
    input. sizes: those that the generator renders. The first latent of a voice is the mean of `instances` latents of
    its `nearest` prototypes: the first ones, as published, or the ones whose face embeddings are nearest to the voice,
    weighted by their similarity or not. empty_prototypes: prototypes without a latent, which published memories have.
    latent_rows: L where the latents are w+ [L, D], None where they are w [D].

    These name optional files; a bundle without them is as published. front_end: `log_mel` is CMPC's, `own` is
    front_end.pt. first_latent: with `map`, latent_map.npz makes it from the voice embedding, in place of the mean of
    instances. mapper: whether there is a mapper.pt, which makes a latent without any step. prior: None for no prior.

    learning_rate: base rate of the optimisation, 0.01 as published. files: the sha256 of each file.
    """

    name: str
    version: str
    licence: str
    sources: tuple[str, ...]
    card: str
    image_size: Count
    encoder_size: Count
    sizes: tuple[Count, ...]
    embedding_dim: Count
    latent_dim: Count
    latent_std: float
    prototypes: Count
    prototype_level: Count
    nearest: Count
    instances: Count
    instance_choice: str
    learning_rate: float
    default_steps: Count
    default_seed: Annotated[int, Meta(ge=0)]
    default_size: Count
    empty_prototypes: Annotated[int, Meta(ge=0)] = 0
    latent_rows: Count | None = None
    front_end: str = FRONT_ENDS[0]
    first_latent: str = FIRST_LATENTS[0]
    mapper: bool = False
    prior: Prior | None = None
    limits: Limits = Limits()
    files: Mapping[str, str] = {}
    format: int = FORMAT

    def __post_init__(self) -> None:
        if self.default_size not in self.sizes:
            raise BundleError(f"default_size must be one of {list(self.sizes)}, got {self.default_size}")
        if not 1 <= self.default_steps <= self.limits.steps:
            raise BundleError(f"default_steps must be 1 to {self.limits.steps}, got {self.default_steps}")
        _check_choice("instance_choice", self.instance_choice, INSTANCE_CHOICES)
        _check_choice("front_end", self.front_end, FRONT_ENDS)
        _check_choice("first_latent", self.first_latent, FIRST_LATENTS)
        if not 1 <= self.nearest <= self.prototypes:
            raise BundleError(f"nearest must be 1 to {self.prototypes}, got {self.nearest}")
        if not 0 <= self.empty_prototypes < self.prototypes:
            raise BundleError(f"empty_prototypes must be 0 to {self.prototypes - 1}, got {self.empty_prototypes}")

    @property
    def latent_shape(self) -> tuple[int, ...]:
        """[D] of w, or [L, D] of w+."""
        return (self.latent_dim,) if self.latent_rows is None else (self.latent_rows, self.latent_dim)

    @property
    def file_names(self) -> tuple[str, ...]:
        """The files of this bundle besides its manifest."""
        optional = {
            EMBEDDINGS: self.instance_choice != "first",
            FRONT_END: self.front_end == "own",
            LATENT_MAP: self.first_latent == "map",
            LATENT_PRIOR: self.prior is not None,
            MAPPER: self.mapper,
        }
        return (*FILES, *(name for name, is_used in optional.items() if is_used))

    def without_bank_parts(self) -> "Manifest":
        """This manifest without the files of `BANK_PARTS`, for a bundle with another latent bank."""
        return structs.replace(self, first_latent=FIRST_LATENTS[0], mapper=False, prior=None)

    @property
    def presets(self) -> tuple[str, ...]:
        """The presets that this bundle has: without a mapper, those that need none."""
        return tuple(name for name, preset in PRESETS.items() if self.mapper or not preset.from_mapper)

    def resolve(self, options: Options) -> Settings:
        """Fill in the defaults of bundle and preset. Raises InputError (bad_option) for a value beyond the limits."""
        preset = options.preset or DEFAULT
        if preset not in self.presets:
            raise bad_option(f"preset must be one of {', '.join(self.presets)} with this bundle, got {preset}")
        least = 0 if PRESETS[preset].from_mapper else 1
        steps = PRESETS[preset].steps(self.default_steps) if options.steps is None else options.steps
        seed = self.default_seed if options.seed is None else options.seed
        size = self.default_size if options.size is None else options.size
        if not least <= steps <= self.limits.steps:
            or_none = f", or 0 with the preset {INSTANT}" if least and self.mapper else ""
            raise bad_option(f"steps must be {least} to {self.limits.steps}{or_none}, got {steps}")
        if size not in self.sizes:
            raise bad_option(f"size must be one of {', '.join(map(str, self.sizes))}, got {size}")
        previews = options.previews or 0
        if previews > self.limits.previews:
            raise bad_option(f"previews must be 0 to {self.limits.previews}, got {previews}")
        if previews and not steps:
            raise bad_option(f"previews must be 0 with 0 steps, got {previews}")
        if previews and previews >= steps:
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
        """This manifest with a service's limits; a default beyond a limit becomes that limit.

        Raises BundleError if no size of the bundle is within `caps.size`.
        """
        sizes = tuple(size for size in self.sizes if caps.size is None or size <= caps.size)
        if not sizes:
            raise BundleError(
                f"the service must allow a size of at least {min(self.sizes)} pixels for this bundle, got {caps.size}"
            )
        limits = structs.replace(
            self.limits,
            steps=_lower(self.limits.steps, caps.steps),
            audio_seconds=_lower(self.limits.audio_seconds, caps.audio_seconds),
            previews=_lower(self.limits.previews, caps.previews),
        )
        return structs.replace(
            self,
            sizes=sizes,
            default_size=self.default_size if self.default_size in sizes else max(sizes),
            default_steps=min(self.default_steps, limits.steps),
            limits=limits,
        )

    def to_json(self) -> bytes:
        """The content of bundle.json."""
        return msgspec.json.format(msgspec.json.encode(self), indent=1) + b"\n"

    @classmethod
    def read(cls, folder: Path) -> "Manifest":
        """The manifest of a bundle folder. Raises what `parse` raises, and BundleError for a folder without one."""
        path = folder / MANIFEST
        try:
            return cls.parse(path.read_bytes(), str(path))
        except FileNotFoundError:
            raise BundleError(f"no bundle in {folder}: {MANIFEST} is missing") from None

    @classmethod
    def parse(cls, content: bytes, source: str) -> "Manifest":
        """Parse bundle.json. Raises BundleError, which names `source`, for unknown, missing or wrongly typed fields."""
        try:
            msgspec.json.decode(content)  # a syntax error anywhere is reported as one
            values = msgspec.json.decode(content, type=dict[str, msgspec.Raw])
            if (found := bytes(values.get("format", b"null"))) != str(FORMAT).encode():
                raise BundleError(f"{source}: format must be {FORMAT}, got {found.decode()}; build the bundle again")
            if unknown := next((name for name in values if name not in cls.__struct_fields__), None):
                known = nearest(unknown, cls.__struct_fields__)
                raise BundleError(f"{source} has the unknown field {unknown!r}; the nearest known one is {known!r}")
            return msgspec.json.decode(content, type=cls)
        except msgspec.ValidationError as error:
            raise BundleError(f"{source}: {invalid_value(error, json.loads(content))}") from None
        except (UnicodeDecodeError, msgspec.DecodeError) as error:
            raise BundleError(f"{source} is not JSON: {error}") from None


def invalid_value(error: msgspec.ValidationError, values: Mapping[str, object]) -> str:
    """msgspec's message, which states the rule and the field, with the value that broke the rule."""
    if isinstance(error.__cause__, BundleError):
        return str(error.__cause__)  # a check of ours, whose message has the value
    _, _, field = str(error).partition("`$.")
    value: object = values
    for name in field.rstrip("`").split("."):
        if not isinstance(value, Mapping) or name not in value:
            return str(error)
        value = value[name]
    return f"{error}, got {value!r}"


def _check_choice(name: str, value: str, choices: Sequence[str]) -> None:
    if value not in choices:
        raise BundleError(f"{name} must be one of {', '.join(choices)}, got {value}")


def _lower(own: Number, cap: Number | None) -> Number:
    return own if cap is None else min(own, cap)
