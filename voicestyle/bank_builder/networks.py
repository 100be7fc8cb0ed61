"""The tools of a build, from its options: generator, loss and inverter, judge, and the network that compares frames."""

from collections.abc import Mapping
from functools import partial
from pathlib import Path

import torch

from voicestyle import torchscript
from voicestyle.bank_builder.executors import Toolbox
from voicestyle.bank_builder.frontal import FrontalChooser
from voicestyle.bank_builder.options import BankOptions
from voicestyle.bank_builder.shard_task import Pixels, Tools
from voicestyle.bundle import GENERATOR_INTERFACE, sha256
from voicestyle.errors import BundleError
from voicestyle.face_networks import ClipImageEncoder, FaceNetwork
from voicestyle.face_networks.dlib_resnet import PACKAGE
from voicestyle.face_networks.npm_package import fetch_files
from voicestyle.face_networks.weight_files import LPIPS_IN_CACHE, fetch_lpips_linear
from voicestyle.generators import read_stylegan2
from voicestyle.inversion import Inverter, LossFiles, load_loss
from voicestyle.manifest import Manifest
from voicestyle.photographs import PhotographJudge
from voicestyle.photographs.reading import UnusablePicture, read_picture
from voicestyle.precision import DTYPES, adapt_convolutions_

GENERATOR = "generator.pt"
CACHE = "cache/"  # prefix of the names of downloaded weights, followed by their path in the cache


def make_toolbox(options: BankOptions) -> Toolbox:
    """The toolbox of a build. Weights that are not given are downloaded to `options.cache` by npm and pip.

    Raises:
        BundleError: the bundle's generator is missing or was altered.
        CheckpointError: a download failed.
    """
    files = {GENERATOR: options.stylegan or _generator_of(options.bundle)}
    given = {"vgg": options.vgg, "lpips": options.lpips, "identity": options.identity, "clip": options.clip}
    files |= {name: path for name, path in given.items() if path is not None}
    cached: list[Path] = []
    if options.vgg and not options.lpips and not options.unweighted:
        fetch_lpips_linear(options.cache)
        cached.append(LPIPS_IN_CACHE)
    if not options.identity:
        fetch_files(PACKAGE, options.cache)
        cached += [PACKAGE.path_in_cache(name) for name in PACKAGE.files]
    files |= {f"{CACHE}{path.as_posix()}": options.cache / path for path in cached}
    return Toolbox(partial(open_tools, options), files, options.threads)


def open_tools(options: BankOptions, files: Mapping[str, Path]) -> Tools:
    """Load the tools from `files`, by the names that `make_toolbox` gives them.

    Raises:
        PhotographError: the detector is not installed.
        BundleError, CheckpointError: an invalid weight file.
        OSError: a path that cannot be opened.
    """
    dtype = DTYPES[options.dtype]
    cached = [path.parents[1] for name, path in files.items() if name.startswith(CACHE)]
    loss_files = LossFiles(files.get("vgg"), files.get("lpips"), options.unweighted, files.get("identity"))
    loss = load_loss(loss_files, options.device, dtype, cached[0] if cached else options.cache)
    generator = _open_generator(files[GENERATOR], options, dtype)
    inverter = Inverter(generator, loss, options.inversion, batch=options.batch, device=options.device)
    judge = PhotographJudge(options.detector, options.gates, align=options.align)
    chooser = None
    if options.csv is not None:
        network: FaceNetwork = loss.network
        if "clip" in files:
            network = ClipImageEncoder.read(files["clip"]).to(options.device)
        chooser = FrontalChooser(network, partial(_read_frame, judge, network.needs_alignment), options.device)
    return Tools(judge, inverter, chooser)


def _generator_of(bundle: Path) -> Path:
    path = bundle / GENERATOR
    expected = Manifest.read(bundle).files.get(GENERATOR)
    if not path.is_file() or sha256(path) != expected:
        raise BundleError(f"{path} must have the sha256 in the bundle's manifest, {expected}, it does not")
    return path


def _open_generator(path: Path, options: BankOptions, dtype: torch.dtype) -> object:
    if options.stylegan is not None:
        generator, _ = read_stylegan2(path)
        adapt_convolutions_(generator, dtype)
        return generator.to(options.device).requires_grad_(False)
    try:
        return torchscript.load(path, options.device, dtype, keep=GENERATOR_INTERFACE)
    except RuntimeError as error:
        reason = str(error).strip().split("\n")[0]
        raise BundleError(f"{path} must be the generator of a current bundle: {reason}") from error


def _read_frame(judge: PhotographJudge, aligned: bool, path: Path) -> Pixels | None:
    """The picture of a frame, or its largest face aligned, whatever the gates say of it; None if there is none."""
    if aligned:
        return judge(path).aligned
    try:
        return read_picture(path).pixels
    except UnusablePicture:
        return None
