"""Damaged checkpoints: `litlab resume` must name each and go on from the one before; `litlab test` must refuse."""

import hashlib
import io
import os
import random
import signal
import zipfile
from collections.abc import Callable
from functools import partial
from pathlib import Path

import kill_fits
import runs
import torch
from bench import Bench, Project, Row, noted
from commands import until
from kill_fits import Whole

CASE = ["digits-mlp", "--model.dropout", "0.3", "--data.batch_size", "16", "--trainer.max_epochs", "10"]
LAST, PREVIOUS, BEST = "last.ckpt", "previous.ckpt", "best.ckpt"
Harm = Callable[[bytes, random.Random], bytes]


class Evil:
    """What would write a file if it were unpickled."""

    def __init__(self, witness: Path) -> None:
        self.witness = witness

    def __reduce__(self) -> tuple[Callable[..., object], tuple[str]]:
        return os.mkdir, (str(self.witness),)


def flipped(content: bytes, chance: random.Random) -> bytes:
    changed = bytearray(content)
    changed[chance.randrange(len(content))] ^= 1 << chance.randrange(8)
    return bytes(changed)


def truncated(content: bytes, chance: random.Random) -> bytes:
    return content[: chance.randrange(1, len(content))]


def hole(content: bytes, chance: random.Random) -> bytes:
    """A block of zeros, as a power cut leaves one."""
    start = chance.randrange(0, len(content) // 2)
    return content[:start] + bytes(4096) + content[start + 4096 :]


def another_archive(content: bytes, chance: random.Random) -> bytes:
    file = io.BytesIO()
    with zipfile.ZipFile(file, "w") as archive:
        archive.writestr("archive/data.pkl", b"no checkpoint")
    return file.getvalue()


def another_state(content: bytes, chance: random.Random) -> bytes:
    file = io.BytesIO()
    torch.save({"weights": torch.zeros(3)}, file)
    return file.getvalue()


HARMS: dict[str, Harm] = {
    "a flipped bit": flipped,
    "truncated": truncated,
    "without its last byte": lambda content, chance: content[:-1],
    "zeros": lambda content, chance: bytes(len(content)),
    "a block of zeros": hole,
    "empty": lambda content, chance: b"",
    "garbage": lambda content, chance: chance.randbytes(len(content)),
    "too long": lambda content, chance: content + b"\n",
    "another ZIP archive": another_archive,
    "another file of torch's": another_state,
}
TIMES = {"a flipped bit": 4, "truncated": 3}
Plan = tuple[str, tuple[str, ...], int]  # a harm, the files, and which time
PLANS: list[Plan] = [(name, (LAST,), number) for name in HARMS for number in range(TIMES.get(name, 1))]
PLANS += [(name, (LAST, PREVIOUS), 0) for name in ("a flipped bit", "truncated", "zeros", "empty", "garbage")]
PLANS += [("garbage", (LAST, PREVIOUS, BEST), 1), ("a pickle that runs code", (LAST,), 0)]
PLANS += [("a pickle that runs code", (LAST, PREVIOUS), 0)]
TESTED = ["a flipped bit", "truncated", "empty", "another ZIP archive", "a pickle that runs code"]


def total(quick: bool) -> int:
    return 3 if quick else len(PLANS) + len(TESTED)


def table(bench: Bench) -> list[Row]:
    """A row for `litlab resume`, one for `litlab test`."""
    plans, tested = (PLANS[-3::2], TESTED[-1:]) if bench.quick else (PLANS, TESTED)
    reference = kill_fits.whole(bench, CASE, "whole")
    template, run_id = _stopped(bench)
    resumed = bench.side_by_side([partial(_resumed, bench, template, run_id, reference, *plan) for plan in plans])
    refused = bench.side_by_side([partial(_refused, bench, reference, name) for name in tested])
    told = f"{', '.join(dict.fromkeys(name for name, *_ in plans))}"
    of = f"{sum(len(names) > 1 for _, names, _ in plans)} times of last.ckpt and those before it"
    found = "each named, put aside or passed over, the newest whole one used; then the same weights and metrics"
    return [
        Row(f"damaged last.ckpt of a killed fit, then `litlab resume`: {told}", f"{len(plans)}, {of}", found,
            [said for lost in resumed for said in lost]),
        Row(f"damaged best.ckpt, then `litlab test`: {', '.join(tested)}", str(len(tested)),
            "refused by name, exit code 2", [said for lost in refused for said in lost]),
    ]  # fmt: skip


def _stopped(bench: Bench) -> tuple[Project, str]:
    """A fit that was killed in the middle of its epochs."""
    project = bench.project("stopped")
    command = bench.litlab("fit", *CASE, uri=project.uri)
    until(lambda: any(path.read_text().count("val/loss") > 5 for path in project.folder.rglob("metrics.jsonl")))
    while command.wait(0.01) is None:
        os.kill(command.pid, signal.SIGSTOP)
        if {LAST, PREVIOUS} <= {path.name for path in project.folder.rglob("*.ckpt")}:  # not while one is replaced
            break
        os.kill(command.pid, signal.SIGCONT)
    if not command.kill():
        raise RuntimeError("the fit ended before it could be killed")
    return project, runs.every(project.uri)[0].info.run_id


def harm(folder: Path, name: str, files: tuple[str, ...], chance: random.Random, witness: Path) -> None:
    """Damage checkpoints in place: their other names, which are links, are damaged with them."""
    for file in files:
        path = folder / "checkpoints" / file
        if name in HARMS:
            path.write_bytes(HARMS[name](path.read_bytes(), chance))
        else:  # somebody who can write digests, too
            torch.save({**torch.load(path, weights_only=True), "evil": Evil(witness)}, path)
            digest = hashlib.sha256(path.read_bytes()).hexdigest()
            path.with_name(f"{file}.sha256").write_text(f"{digest}  {file}\n")


def _resumed(
    bench: Bench, template: Project, run_id: str, reference: Whole, name: str, files: tuple[str, ...], number: int
) -> list[str]:
    label = f"{name}-{len(files)}-{number}".replace(" ", "-").replace("'", "")
    project, lost = bench.copy(template, label), list[str]()
    folder = runs.folder_of(project.uri, runs.every(project.uri)[0])
    harm(folder, name, files, bench.random(label), project.folder / "evil")
    command = bench.litlab("resume", run_id, uri=project.uri, log=f"{label}.txt")
    if code := command.end():
        lost.append(f"exit code {code}: {command.last}")
    lost += [f"nothing said of {file}" for file in files if str(folder / "checkpoints" / file) not in command.text]
    if f"from {LAST}" in command.text or "Resuming run" not in command.text:
        lost.append("it did not go on from the one before")
    lost += ["the pickle has run"] if (project.folder / "evil").exists() else []
    with noted(lost, "the check"):
        lost += runs.differences(project.uri, run_id, reference.project.uri, reference.run_id)
    bench.step()
    return [f"{label}: {said}" for said in lost]


def _refused(bench: Bench, reference: Whole, name: str) -> list[str]:
    label = f"test-{name}".replace(" ", "-")
    project = bench.copy(reference.project, label)
    run = next(run for run in runs.every(project.uri) if run.info.run_id == reference.run_id)
    folder = runs.folder_of(project.uri, run)
    harm(folder, name, (BEST,), bench.random(label), project.folder / "evil")
    command = bench.litlab("test", reference.run_id, uri=project.uri, log=f"{label}.txt")
    code, lost = command.end(), list[str]()
    lost += [] if code == 2 else [f"exit code {code}: {command.last}"]
    lost += [] if str(folder / "checkpoints" / BEST) in command.text else ["the file is not named"]
    lost += ["the pickle has run"] if (project.folder / "evil").exists() else []
    bench.step()
    return [f"{label}: {said}" for said in lost]
