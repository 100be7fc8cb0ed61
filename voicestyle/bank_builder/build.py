"""Build a latent bank from photographs: plan, shards, merge and report, as one job that can be interrupted."""

import logging
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass, replace
from pathlib import Path

import torch

from voicestyle import __version__
from voicestyle.bank_builder.errors import BankError
from voicestyle.bank_builder.executors import Toolbox, run_here, run_in_processes, torch_threads
from voicestyle.bank_builder.folder import BankFolder
from voicestyle.bank_builder.merge import BankDescription, merge
from voicestyle.bank_builder.networks import make_toolbox
from voicestyle.bank_builder.options import BankOptions
from voicestyle.bank_builder.plan import Group, Plan, Setting
from voicestyle.bank_builder.ray_tasks import LOCAL, run_on_ray
from voicestyle.bank_builder.report import write_report
from voicestyle.bank_builder.shard import Shard, decode
from voicestyle.bank_builder.shard_task import ShardTask, Stored, Tools
from voicestyle.bank_builder.sources import Sources, find_sources
from voicestyle.bundle import sha256

log = logging.getLogger(__name__)


@dataclass(frozen=True)
class Counts:
    """Progress in photographs. done: kept, rejected and in progress ones; resumed: those of an earlier run."""

    total: int
    done: int
    kept: int = 0
    rejected: int = 0
    resumed: int = 0


Progress = Callable[[Counts], None]
Executor = Callable[[Iterator[ShardTask], Callable[[], None]], Iterator[tuple[int, bytes]]]


def ignore(counts: Counts) -> None:
    """Show no progress."""


@dataclass(frozen=True)
class BuiltBank:
    """A finished bank: `latents` in the published form, `bank` its description, and the report."""

    latents: Path
    bank: Path
    report: Path
    description: BankDescription

    def __str__(self) -> str:
        return self.summary(self.latents, self.report)

    def summary(self, latents: Path, report: Path) -> str:
        """What was built, with the paths of the latents and the report."""
        photographs, videos = self.description.photographs, self.description.videos
        rejected = sum(photographs.rejected.values())
        lines = [
            f"{latents}: latents {list(self.description.shape)}",
            f"{photographs.kept} of {photographs.total} photographs kept, {rejected} rejected"
            + (f", {photographs.unchosen} chosen by no video" if photographs.unchosen else ""),
        ]
        if videos.total:
            lines.append(f"{videos.kept} of {videos.total} videos with a latent")
        lines += [f"loss: {self.description.loss}", f"detector: {self.description.detector}", f"report: {report}"]
        return "\n".join(lines)


def build_bank(options: BankOptions, progress: Progress = ignore, toolbox: Toolbox | None = None) -> BuiltBank:
    """Build the bank of `options.output`, or continue an interrupted build of it.

    toolbox: judge, inverter and chooser, by default those of `options`. progress: called for every photograph, or in
    builds with several processes for every shard.

    Raises:
        BankError: options, photographs or a folder that do not allow it, or a folder that another process builds in.
        CheckpointError, BundleError: an invalid weight file.
        PhotographError: a detector that is not installed.
        OSError: a path that cannot be opened.
    """
    folder = BankFolder(options.output)
    with folder.locked(), torch_threads(options.threads):
        sources = find_sources(options.photographs, options.csv, options.frames)
        if toolbox is not None:
            tools = toolbox.open()
        else:
            toolbox = make_toolbox(options)
            # On Ray, nodes do the work. This process needs names and a check of the files, and may have no GPU.
            tools = (toolbox if options.ray is None else make_toolbox(replace(options, device="cpu"))).open()
        if sources.unused:
            log.info("%d photographs are of persons without a video in %s", sources.unused, options.csv)
        plan = Plan(
            settings=_settings(options, tools, toolbox.files),
            shard_size=options.shard_size,
            groups=sources.groups,
        )
        if options.restart:
            folder.discard()
        folder.adopt(plan)
        execute = _executor(options, toolbox, tools)
        del tools  # other processes have their own
        _run_missing(folder, plan, sources, execute, progress)
        description = merge(folder, plan)
        write_report(folder, plan, description)
    return BuiltBank(folder.latents, folder.bank, folder.report, description)


def rewrite_report(path: Path) -> BuiltBank:
    """Merge a finished build again and write its report again. Raises BankError for a folder without one."""
    folder = BankFolder(path)
    plan = folder.read_plan()  # before the lock, which would make a missing folder
    if plan is None:
        raise BankError(f"{path} must be the folder of a bank build, got one without a plan")
    with folder.locked():
        description = merge(folder, plan)
        write_report(folder, plan, description)
    return BuiltBank(folder.latents, folder.bank, folder.report, description)


def _settings(options: BankOptions, tools: Tools, files: Mapping[str, Path]) -> dict[str, Setting]:
    return {
        **options.settings(),
        **{f"sha256 of {name}": sha256(path) for name, path in files.items()},
        "loss": tools.inverter.loss_name,
        "detector": tools.judge.name,
        "replacement": None if tools.chooser is None else tools.chooser.name,
        # Results may differ in the last bit between versions, and between kinds of processors.
        "voicestyle": __version__,
        "torch": str(torch.__version__),
    }


def _executor(options: BankOptions, toolbox: Toolbox, tools: Tools) -> Executor:
    if options.ray is not None:
        gpus = int(options.uses_cuda)
        return lambda tasks, _: run_on_ray(tasks, toolbox, options.ray or LOCAL, options.workers, gpus)
    if options.workers > 1:
        return lambda tasks, _: run_in_processes(tasks, toolbox, options.workers)
    return lambda tasks, on_result: run_here(tasks, tools, on_result)


def _run_missing(folder: BankFolder, plan: Plan, sources: Sources, execute: Executor, progress: Progress) -> None:
    shards = plan.shards()
    missing = folder.missing(plan)
    sizes = [sum(len(group.photographs) for group in shard) for shard in shards]
    total, left = sum(sizes), sum(sizes[number] for number in missing)
    counts = Counts(total, done=total - left, resumed=total - left)
    progress(counts)
    started = 0  # photographs of the running shard

    def on_result() -> None:
        nonlocal started
        started += 1
        progress(replace(counts, done=counts.done + started))

    digest = plan.digest
    tasks = (_task(digest, number, shards[number], sources) for number in missing)
    for number, content in execute(tasks, on_result):
        folder.write_shard(number, content)
        shard = decode(content, f"shard {number}")
        kept, rejected = _report_rejected(shard)
        counts = replace(
            counts,
            done=counts.done + len(shard.photographs),
            kept=counts.kept + kept,
            rejected=counts.rejected + rejected,
        )
        started = 0
        progress(counts)


def _task(plan: str, number: int, groups: tuple[Group, ...], sources: Sources) -> ShardTask:
    return ShardTask(
        plan,
        number,
        groups,
        photographs={
            source.key: Stored(f"photograph{sources.paths[source.key].suffix}", sources.paths[source.key])
            for group in groups
            for source in group.photographs
            if not source.unreadable
        },
        frames={
            video.key: tuple(Stored(path.name, path) for path in sources.frames[video.key])
            for group in groups
            for video in group.videos
        },
    )


def _report_rejected(shard: Shard) -> tuple[int, int]:
    """Log a line for each rejected photograph and video; the numbers of kept and of rejected photographs."""
    for item in (*shard.photographs, *shard.videos):
        if item.rejected is not None:
            log.warning("%r: %s", item.key, item.rejected)
    kept = sum(item.inverted is not None for item in shard.photographs)
    return kept, sum(item.rejected is not None for item in shard.photographs)
