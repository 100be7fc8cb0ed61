"""GPUs that are not there: an executable nvidia-smi, and a `Machine` whose torch has what a test wants."""

import json
import zipfile
from dataclasses import dataclass

import yaml

from voicestyle.devices.machine import Gpus, Machine

SMI = """#!/bin/sh
echo "$*" >> {log}
case "$*" in
*=index\\ *) echo index; {indices} ;;
*-i*) echo "utilization.gpu [%], utilization.memory [%], memory.used [MiB]"; echo "0 %, 0 %, 1 MiB" ;;
*) {names} ;;
esac
exit {status}
"""


def fake_smi(folder, gpus=1, name="NVIDIA L4", driver="580.65.06", status=0, says=None):
    """Write an executable `folder/bin/nvidia-smi`, which logs its arguments in `folder/calls`; returns its folder."""
    (folder / "bin").mkdir(parents=True)
    executable = folder / "bin" / "nvidia-smi"
    names = "; ".join([f"echo '{name}, {driver}'"] * gpus) if says is None else f"echo {says!r}"
    indices = "; ".join(f"echo {index}" for index in range(gpus))
    executable.write_text(SMI.format(log=folder / "calls", indices=indices, names=names, status=status))
    executable.chmod(0o755)
    return executable.parent


@dataclass(frozen=True)
class FakeMachine(Machine):
    """A machine whose torch has `count` GPUs, or the reason why none."""

    count: int = 0
    reason: str | None = None
    build: str | None = "13.0"

    @property
    def cuda_build(self):
        return self.build

    def gpus(self):
        return Gpus(self.count, self.reason)


def with_model_config(archive, target, handler=None, **changes):
    """A copy of an archive with other values in its model config."""
    with zipfile.ZipFile(archive) as source, zipfile.ZipFile(target, "w") as out:
        name = json.loads(source.read("MAR-INF/MANIFEST.json"))["model"]["configFile"]
        for each in source.infolist():
            content = source.read(each)
            if each.filename == name:
                config = yaml.safe_load(content) | changes
                config["handler"] |= handler or {}
                content = yaml.safe_dump(config)
            out.writestr(each, content)
    return target
