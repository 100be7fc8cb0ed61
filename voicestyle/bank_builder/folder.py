"""The folder of a bank build: its plan, its shards, its lock and its results."""

import fcntl
import os
from collections.abc import Generator, Iterator
from contextlib import contextmanager
from pathlib import Path

from voicestyle.bank_builder.errors import BankError
from voicestyle.bank_builder.plan import Plan
from voicestyle.bank_builder.shard import Shard, decode
from voicestyle.whole_files import write_whole

PLAN = "plan.json"
SHARDS = "shards"
LATENTS = "latents.pt"
BANK = "bank.json"
REPORT = "report.html"
LOCK = "lock"


class BankFolder:
    """Paths and files of one build. Every file is written whole or not at all."""

    def __init__(self, path: Path) -> None:
        self.path = path
        self.latents = path / LATENTS
        self.bank = path / BANK
        self.report = path / REPORT
        self._plan = path / PLAN
        self._shards = path / SHARDS

    @contextmanager
    def locked(self) -> Generator[None]:
        """Make the folder and hold its lock. The kernel releases the lock when the process ends, however it ends.

        Raises BankError while another process holds it.
        """
        self.path.mkdir(parents=True, exist_ok=True)
        with (self.path / LOCK).open("a+", encoding="ascii") as file:
            try:
                fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
            except BlockingIOError:
                file.seek(0)
                raise BankError(
                    f"only one process may build in {self.path}, got a second one; the first is {file.read() or '?'}"
                ) from None
            file.truncate(0)
            file.write(f"process {os.getpid()}")
            file.flush()
            self._remove_drafts()
            yield
            file.truncate(0)

    def _remove_drafts(self) -> None:
        """Remove what a killed process has left of `whole_file`."""
        for name in (PLAN, LATENTS, BANK, REPORT):
            for draft in self.path.glob(f".{name}.*.part"):
                draft.unlink()
        for draft in self._shards.glob(".*.part"):
            draft.unlink()

    def read_plan(self) -> Plan | None:
        """The plan, or None where no build has begun. Raises BankError for another file of that name."""
        try:
            content = self._plan.read_bytes()
        except FileNotFoundError:
            return None
        return Plan.from_json(content, str(self._plan))

    def adopt(self, plan: Plan) -> None:
        """Begin the build of `plan`, or continue it. Raises BankError if the folder holds another plan."""
        existing = self.read_plan()
        if existing is None:
            self._shards.mkdir(exist_ok=True)
            write_whole(self._plan, plan.to_json())
        else:
            existing.check_same(plan, str(self._plan))

    def discard(self) -> None:
        """Remove a build and its results."""
        # The plan is last: until it is gone, the folder's shards belong to it.
        for path in (self.report, self.bank, self.latents, *self._shards.glob("*"), self._plan):
            path.unlink(missing_ok=True)

    def missing(self, plan: Plan) -> list[int]:
        """Numbers of the shards that are still to do."""
        return [number for number in range(len(plan.shards())) if not self._path_of(number).exists()]

    def write_shard(self, number: int, content: bytes) -> None:
        """Write the encoded shard `number`."""
        write_whole(self._path_of(number), content)

    def read_shards(self, plan: Plan) -> Iterator[Shard]:
        """All shards of a finished build, in order. Raises BankError if one is missing, damaged or of another plan."""
        if missing := self.missing(plan):
            raise BankError(f"{self.path} must hold all shards of its plan, {len(missing)} are missing: build it first")
        digest = plan.digest
        for number in range(len(plan.shards())):
            path = self._path_of(number)
            shard = decode(path.read_bytes(), str(path))
            if (shard.plan, shard.number) != (digest, number):
                raise BankError(f"{path} must be shard {number} of {self._plan}, got another: remove it and run again")
            yield shard

    def _path_of(self, number: int) -> Path:
        return self._shards / f"{number:06d}.shard"
