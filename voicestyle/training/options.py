"""Options of the demo training. A checkpoint stores them, and resuming requires the same options."""

from dataclasses import dataclass

from voicestyle.training.optimiser import OptimiserOptions
from voicestyle.training.trainer import LoopOptions


@dataclass(frozen=True)
class FaceOptions:
    """Options for drawing and selecting generated faces.

    draws: faces drawn for the bank, with the seeds 0 … draws − 1.
    training_draws: number of faces, from the start, used in the training; the others are only in the bank.
    image_size: input size of the face encoder in pixels.
    least_sex_confidence: minimum confidence of the label model, in percent.
    least_age: minimum age by the label model, in years; its error of some years requires a margin above 18.
    least_faces_per_sex: minimum number of faces after the selection.
    """

    draws: int = 4800
    training_draws: int = 4000
    image_size: int = 128
    least_sex_confidence: int = 95
    least_age: int = 26
    least_faces_per_sex: int = 900

    def __post_init__(self) -> None:
        if not 2 <= self.training_draws <= self.draws or self.least_faces_per_sex < 1:
            raise ValueError(
                "training_draws must be in 2 … draws and least_faces_per_sex at least 1, "
                f"received {self.training_draws} of {self.draws} and {self.least_faces_per_sex}"
            )
        if self.image_size < 32 or 256 % self.image_size:
            raise ValueError(
                f"image_size must divide the generator's 256 pixels and be at least 32, received {self.image_size}"
            )


@dataclass(frozen=True)
class TrainOptions:
    """Options for training the two encoders.

    epochs: passes over the training speakers.
    speakers_per_batch: half women, half men, with two voice crops and two face views per speaker.
    other_faces: additional faces of any identity per batch, for the contrastive losses by sex.
    faces_per_identity: number of faces assigned to a training speaker.
    face_sizes: image sizes in pixels, drawn per batch; the last `full_size_share` of the epochs uses only the largest.
    within_share: share of the epochs, at the start, without cross-modal losses; after it, the pseudo-identities are
        assigned to the speakers again by similarity.
    crop_frames: shortest and longest voice crop, in frames of 10 ms.
    clusters: number of prototypes in the prototype loss, over both sexes.
    """

    epochs: int = 120
    speakers_per_batch: int = 24
    other_faces: int = 32
    faces_per_identity: int = 16
    face_sizes: tuple[int, ...] = (96, 112, 128)
    full_size_share: float = 0.25
    within_share: float = 0.25
    crop_frames: tuple[int, int] = (150, 300)
    clusters: int = 32
    learning_rate: float = 1e-3
    weight_decay: float = 0.02
    temperature: float = 0.05
    sex_temperature: float = 0.1
    instance_weight: float = 1.0
    prototype_weight: float = 0.5
    sex_weight: float = 1.0
    within_weight: float = 2.0
    agreement_weight: float = 0.2
    seed: int = 0

    def __post_init__(self) -> None:
        if self.epochs < 1:
            raise ValueError(f"epochs must be at least 1, received {self.epochs}")
        if self.speakers_per_batch < 4 or self.speakers_per_batch % 2:
            raise ValueError(f"speakers_per_batch must be even and at least 4, received {self.speakers_per_batch}")
        if not 1 <= self.crop_frames[0] <= self.crop_frames[1]:
            raise ValueError(f"crop_frames must be (shortest, longest), received {self.crop_frames}")
        if not self.face_sizes or tuple(sorted(self.face_sizes)) != self.face_sizes:
            raise ValueError(f"face_sizes must be ascending, received {self.face_sizes}")
        if self.temperature <= 0 or self.sex_temperature <= 0:
            raise ValueError(f"temperatures must be positive, received {self.temperature} and {self.sex_temperature}")

    def loop(self) -> LoopOptions:
        """The options of the training loop."""
        rate = self.learning_rate
        optimiser = OptimiserOptions("adamw", rate, 0.02 * rate, self.weight_decay, warm_up=0.05, clip=5.0)
        return LoopOptions(self.epochs, optimiser=optimiser)
