"""The options of a bank build."""

from dataclasses import dataclass, field, fields
from pathlib import Path

from voicestyle.bank_builder.errors import BankError
from voicestyle.face_networks import DEFAULT_CACHE
from voicestyle.inversion import InversionOptions
from voicestyle.photographs import Gates
from voicestyle.precision import DTYPES


@dataclass(frozen=True)
class BankOptions:
    """Options of a build; they check themselves when made.

    photographs: files and folders. output: the folder of the build.

    Generator: stylegan, a StyleGAN2 checkpoint; without it, that of the folder `bundle`.
    Losses: vgg, lpips, unweighted and identity as in `voicestyle.inversion.LossFiles`. cache: where the stand-in of a
    missing file is downloaded to.
    Frontal replacement: csv, the published list of videos; frames, a folder with `NAME/1.6/VIDEO/*.jpg`; clip, OpenAI's
    ViT-B/32, without which the identity network compares photographs and frames.

    detector, align, gates: as in `voicestyle.photographs.PhotographJudge`. w_plus: one latent [L, 512] for each
    photograph in place of [512]. steps, seed: of the inversion. dtype: of the convolutions of generator, VGG-16 and
    ArcFace. device: cpu or cuda.

    batch: photographs that are inverted at once; None for the default of `voicestyle.inversion.Inverter`. shard_size:
    photographs of a shard, which is the work that an interruption loses. workers: processes on this machine. threads:
    of torch in each of them. ray: `local`, or the address of a Ray cluster, which then does the work. restart: discard
    the folder's earlier build.

    Raises BankError for values out of range and options that do not belong together.
    """

    photographs: tuple[Path, ...]
    output: Path
    bundle: Path = Path("bundles/demo")
    stylegan: Path | None = None
    vgg: Path | None = None
    lpips: Path | None = None
    identity: Path | None = None
    unweighted: bool = False
    cache: Path = DEFAULT_CACHE
    csv: Path | None = None
    frames: Path | None = None
    clip: Path | None = None
    detector: str = "auto"
    align: bool = True
    gates: Gates = field(default_factory=Gates)
    w_plus: bool = False
    steps: int = 300
    seed: int = 0
    dtype: str = "float32"
    device: str = "cpu"
    batch: int | None = None
    shard_size: int = 8
    workers: int = 1
    threads: int = 1
    ray: str | None = None
    restart: bool = False

    def __post_init__(self) -> None:
        for name in ("batch", "shard_size", "workers", "threads"):
            if getattr(self, name) is not None and getattr(self, name) < 1:
                raise BankError(f"{name} must be at least 1, got {getattr(self, name)}")
        try:
            _ = self.inversion
        except ValueError as error:
            raise BankError(str(error)) from error
        if self.dtype not in DTYPES:
            raise BankError(f"dtype must be one of {', '.join(DTYPES)}, got {self.dtype}")
        if (self.csv is None) != (self.frames is None):
            given, other = ("csv", "frames") if self.csv else ("frames", "csv")
            raise BankError(
                f"csv and frames belong together: the list of videos and their frames; got {given} without {other}"
            )
        if self.clip is not None and self.csv is None:
            raise BankError("clip compares photographs with frames of videos, got it without csv and frames")

    @property
    def inversion(self) -> InversionOptions:
        """The options of the inversion."""
        return InversionOptions(self.steps, w_plus=self.w_plus, seed=self.seed)

    @property
    def uses_cuda(self) -> bool:
        """Whether the work needs a GPU."""
        return self.device.startswith("cuda")

    def settings(self) -> dict[str, str | int | float | bool | None]:
        """The options that the bank's bytes depend on, by name; a gate is `gates.NAME`. No path is among them."""
        names = ("align", "w_plus", "steps", "seed", "dtype", "threads")
        gates = {f"gates.{gate.name}": getattr(self.gates, gate.name) for gate in fields(self.gates)}
        device = "cuda" if self.uses_cuda else "cpu"
        return {name: getattr(self, name) for name in names} | gates | {"device": device}
