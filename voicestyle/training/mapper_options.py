"""Options of the mapper's training. A checkpoint stores them, and resuming requires the same ones."""

from dataclasses import asdict, dataclass
from typing import Any

from voicestyle.mapper import BOUND, HIDDEN, LAYERS
from voicestyle.training.errors import TrainingError
from voicestyle.training.optimiser import OptimiserOptions

PRIOR_WEIGHT = 0.5  # where the bundle names none


@dataclass(frozen=True)
class MapperOptions:
    """Defaults: at most 25 minutes on two cores with the demo's generator, recordings included.

    steps, minutes: the training ends after so many steps, or after so many minutes of training, if that is earlier; the
        learning rate falls with the larger of both shares. None: no bound in time.
    batch: voices per step whose faces are generated, of as many speakers.
    others: further voices per step, of other speakers, without faces: the contrast and the drift need no more.
    learning_rate, final_learning_rate, warm_up, weight_decay, clip: see `OptimiserOptions`; AdamW.
    prior_weight: of the distance from the first latent. None: the bundle's own, or 0.5.
    contrast_weight, temperature: of the contrast between the voices (InfoNCE).
    drift_weight: of the squared mean displacement of the batch.
    hold: whether the held directions of the prior are held.
    virtual: mixed voices per embedding of a recording; 0 for none.
    validate_every: steps between two validations, which also save the checkpoint.
    patience: validations without a better loss after which the training ends.
    validation_voices: most held-out speakers of a validation.
    at_once: faces that are generated at once. None: one on a CPU, where more save no time, else the batch.
    hidden, layers, bound: see `Mapper`.
    """

    steps: int = 1200
    minutes: float | None = 20.0
    batch: int = 8
    others: int = 56
    learning_rate: float = 1e-3
    final_learning_rate: float = 1e-5
    warm_up: float = 0.05
    weight_decay: float = 0.01
    clip: float = 1.0
    prior_weight: float | None = None
    contrast_weight: float = 0.2
    temperature: float = 0.1
    drift_weight: float = 0.5
    hold: bool = True
    virtual: float = 1.0
    validate_every: int = 50
    patience: int = 8
    validation_voices: int = 32
    at_once: int | None = None
    hidden: int = HIDDEN
    layers: int = LAYERS
    bound: float = BOUND
    seed: int = 0

    def __post_init__(self) -> None:
        least = {
            "steps": 1,
            "batch": 2,
            "validate_every": 1,
            "patience": 1,
            "validation_voices": 2,
            "hidden": 1,
            "layers": 1,
            "others": 0,
            "virtual": 0,
            "contrast_weight": 0,
            "drift_weight": 0,
            "seed": 0,
        }
        for name, lowest in least.items():
            if not getattr(self, name) >= lowest:
                raise TrainingError(f"{name} must be at least {lowest}, received {getattr(self, name)}")
        for name in ("minutes", "temperature", "bound", "at_once"):
            value = getattr(self, name)
            if value is not None and not value > 0:
                raise TrainingError(f"{name} must be above 0, received {value}")
        if self.prior_weight is not None and not self.prior_weight >= 0:
            raise TrainingError(f"prior_weight must be at least 0, received {self.prior_weight}")
        self.optimiser()

    def optimiser(self) -> OptimiserOptions:
        """The part that concerns the optimiser. Raises TrainingError for values out of range."""
        return OptimiserOptions(
            name="adamw",
            learning_rate=self.learning_rate,
            final_learning_rate=self.final_learning_rate,
            weight_decay=self.weight_decay,
            warm_up=self.warm_up,
            clip=self.clip,
        )

    def description(self) -> dict[str, Any]:
        """What a resumed training must share: all but the bound in time, which may be raised."""
        return {name: value for name, value in asdict(self).items() if name != "minutes"}
