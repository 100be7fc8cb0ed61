"""Options of the demo training. A checkpoint stores them, and resuming requires the same options."""

from dataclasses import asdict, dataclass

from voicestyle.training.optimiser import OptimiserOptions
from voicestyle.training.trainer import LoopOptions


@dataclass(frozen=True)
class FaceOptions:
    """Options for drawing and selecting generated faces.

    draws: faces drawn for the bank, with the seeds 0 … draws − 1.
    least_sex_confidence: minimum confidence of the label model, in percent.
    least_age: minimum age by the label model, in years; its error of some years requires a margin above 18.
    least_faces_per_sex: minimum number of faces after the selection.
    per_speaker: faces drawn for each training speaker, of the speaker's code and of random other looks.
    other_looks: how far these go towards what a random face of the bank has besides its code, as a share.
    views: random views of each face whose descriptors are computed for the training of the heads.
    """

    draws: int = 6000
    least_sex_confidence: int = 95
    least_age: int = 26
    least_faces_per_sex: int = 900
    per_speaker: int = 4
    other_looks: float = 0.7
    views: int = 3

    def __post_init__(self) -> None:
        positive = {name: value for name, value in asdict(self).items() if name != "other_looks"}
        if bad := next((name for name, value in positive.items() if value < 1), None):
            raise ValueError(f"{bad} must be at least 1, received {positive[bad]}")


@dataclass(frozen=True)
class TrainOptions:
    """Options for one phase of the training of the two encoders.

    epochs: passes over the training speakers.
    speakers_per_batch: half women, half men, with two voice crops and two face views per speaker.
    bank_faces_per_batch: faces of the bank, each an identity of its own, with made-up voices.
    clusters: number of prototypes in the prototype loss, over both sexes.
    temperature, sex_temperature: of the contrasts between identities and between the sexes.
    instance_weight … distance_weight: of the losses of `DemoObjective`.
    precision: of the encoders' operations, "float32" or "bfloat16".
    seed: of the weights, the pairing and the batches.
    """

    epochs: int = 200
    speakers_per_batch: int = 48
    bank_faces_per_batch: int = 112
    clusters: int = 32
    learning_rate: float = 1e-3
    weight_decay: float = 0.05
    temperature: float = 0.07
    sex_temperature: float = 0.1
    instance_weight: float = 1.0
    prototype_weight: float = 0.25
    sex_weight: float = 0.5
    within_weight: float = 0.5
    distance_weight: float = 2.0
    precision: str = "float32"
    seed: int = 0

    def __post_init__(self) -> None:
        if self.epochs < 1:
            raise ValueError(f"epochs must be at least 1, received {self.epochs}")
        if self.speakers_per_batch < 4 or self.speakers_per_batch % 2:
            raise ValueError(f"speakers_per_batch must be even and at least 4, received {self.speakers_per_batch}")
        if self.temperature <= 0 or self.sex_temperature <= 0:
            raise ValueError(f"temperatures must be positive, received {self.temperature} and {self.sex_temperature}")

    def loop(self) -> LoopOptions:
        """The options of the training loop."""
        rate = self.learning_rate
        optimiser = OptimiserOptions("adamw", rate, 0.02 * rate, self.weight_decay, warm_up=0.05, clip=5.0)
        return LoopOptions(self.epochs, precision=self.precision, optimiser=optimiser)


# The second phase: the recognition network below the face's head is trained further, on images.
TUNE: TrainOptions = TrainOptions(
    epochs=12, speakers_per_batch=16, bank_faces_per_batch=16, learning_rate=5e-5, precision="bfloat16"
)
