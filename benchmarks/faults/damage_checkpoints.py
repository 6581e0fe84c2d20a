"""Damage checkpoints: `litlab resume` must report each and use an earlier one; `litlab test` must refuse them.

A replaced checkpoint that contains code is intact; `litlab resume` must refuse it, too.
"""

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
from bench import Bench, Project, Row, record_errors
from commands import until
from kill_fits import Reference

CASE = ["digits-mlp", "--model.dropout", "0.3", "--data.batch_size", "16", "--trainer.max_epochs", "10"]
LAST, PREVIOUS, BEST = "last.ckpt", "previous.ckpt", "best.ckpt"
Damage = Callable[[bytes, random.Random], bytes]


class MaliciousPickle:
    """Creates a folder when it is unpickled."""

    def __init__(self, witness: Path) -> None:
        self.witness = witness

    def __reduce__(self) -> tuple[Callable[..., object], tuple[str]]:
        return os.mkdir, (str(self.witness),)


def flip_bit(content: bytes, chance: random.Random) -> bytes:
    """Flip a bit of the data: ZIP has no checksum for padding and times, which torch does not read."""
    with zipfile.ZipFile(io.BytesIO(content)) as archive:
        part = chance.choice([info for info in archive.infolist() if info.file_size])
        data = archive.read(part)
    changed = bytearray(content)
    place = content.index(data, part.header_offset) + chance.randrange(len(data))
    changed[place] ^= 1 << chance.randrange(8)
    return bytes(changed)


def truncate(content: bytes, chance: random.Random) -> bytes:
    return content[: chance.randrange(1, len(content))]


def zero_block(content: bytes, chance: random.Random) -> bytes:
    """Overwrite a block with zeros, as a power cut may do."""
    start = chance.randrange(0, len(content) // 2)
    return content[:start] + bytes(4096) + content[start + 4096 :]


def other_archive(content: bytes, chance: random.Random) -> bytes:
    file = io.BytesIO()
    with zipfile.ZipFile(file, "w") as archive:
        archive.writestr("archive/data.pkl", b"not a checkpoint")
    return file.getvalue()


def other_torch_file(content: bytes, chance: random.Random) -> bytes:
    file = io.BytesIO()
    torch.save({"weights": torch.zeros(3)}, file)
    return file.getvalue()


DAMAGES: dict[str, Damage] = {
    "flipped bit": flip_bit,
    "truncated": truncate,
    "last byte missing": lambda content, chance: content[:-1],
    "zeros": lambda content, chance: bytes(len(content)),
    "block of zeros": zero_block,
    "empty": lambda content, chance: b"",
    "random bytes": lambda content, chance: chance.randbytes(len(content)),
    "extra byte": lambda content, chance: content + b"\n",
    "another ZIP archive": other_archive,
    "another torch file": other_torch_file,
}
TIMES = {"flipped bit": 4, "truncated": 3}
Plan = tuple[str, tuple[str, ...], int]  # damage, files, number of the repetition
PLANS: list[Plan] = [(name, (LAST,), number) for name in DAMAGES for number in range(TIMES.get(name, 1))]
PLANS += [(name, (LAST, PREVIOUS), 0) for name in ("flipped bit", "truncated", "zeros", "empty", "random bytes")]
PLANS += [("random bytes", (LAST, PREVIOUS, BEST), 1)]
ATTACK = "pickle that runs code"
ATTACKED = [(LAST,), (LAST, PREVIOUS)]
TESTED = ["flipped bit", "truncated", "empty", "another ZIP archive", ATTACK]


def total(quick: bool) -> int:
    return 4 if quick else len(PLANS) + len(ATTACKED) + len(TESTED)


def table(bench: Bench) -> list[Row]:
    """Return two rows for `litlab resume` and one for `litlab test`."""
    plans, attacked, tested = (PLANS[-2:], ATTACKED[:1], TESTED[-1:]) if bench.quick else (PLANS, ATTACKED, TESTED)
    reference = kill_fits.train_reference(bench, CASE, "reference")
    template, run_id = _killed_fit(bench)
    resume_losses = bench.run_parallel([partial(_resume, bench, template, run_id, reference, *plan) for plan in plans])
    attack_losses = bench.run_parallel([partial(_attack, bench, template, run_id, files) for files in attacked])
    test_losses = bench.run_parallel([partial(_test, bench, reference, name) for name in tested])
    damages = ", ".join(dict.fromkeys(name for name, *_ in plans))
    several = f"{sum(len(names) > 1 for _, names, _ in plans)} of them with earlier checkpoints damaged too"
    outcome = "each reported by name and set aside or skipped, newest intact one used; then same weights and metrics"
    return [
        Row(f"damaged last.ckpt of a killed fit, then `litlab resume`: {damages}", f"{len(plans)}, {several}", outcome,
            [message for lost in resume_losses for message in lost]),
        Row(f"last.ckpt of a killed fit replaced, then `litlab resume`: {ATTACK}", str(len(attacked)),
            "refused by name with a reference to --trust, not executed, exit code 2, file kept",
            [message for lost in attack_losses for message in lost]),
        Row(f"damaged best.ckpt, then `litlab test`: {', '.join(tested)}", str(len(tested)),
            "refused by name, exit code 2", [message for lost in test_losses for message in lost]),
    ]  # fmt: skip


def _killed_fit(bench: Bench) -> tuple[Project, str]:
    """Kill a fit between two epochs; return its project and its run id."""
    project = bench.project("stopped")
    command = bench.litlab("fit", *CASE, uri=project.uri)
    until(lambda: any(path.read_text().count("val/loss") > 5 for path in project.folder.rglob("metrics.jsonl")))
    while command.wait(0.01) is None:
        os.kill(command.pid, signal.SIGSTOP)
        if {LAST, PREVIOUS} <= {path.name for path in project.folder.rglob("*.ckpt")}:  # no replacement under way
            break
        os.kill(command.pid, signal.SIGCONT)
    if not command.kill():
        raise RuntimeError("the fit ended before it was killed")
    return project, runs.all_runs(project.uri)[0].info.run_id


def damage(folder: Path, name: str, files: tuple[str, ...], chance: random.Random, witness: Path) -> None:
    """Damage checkpoints in place. This damages all hard links to the same files too."""
    for file in files:
        path = folder / "checkpoints" / file
        if name in DAMAGES:
            path.write_bytes(DAMAGES[name](path.read_bytes(), chance))
        else:  # by an attacker, with valid checksums
            torch.save({**torch.load(path, weights_only=True), "malicious": MaliciousPickle(witness)}, path)


def _resume(
    bench: Bench, template: Project, run_id: str, reference: Reference, name: str, files: tuple[str, ...], number: int
) -> list[str]:
    label = f"{name}-{len(files)}-{number}".replace(" ", "-").replace("'", "")
    project, lost = bench.copy(template, label), list[str]()
    folder = runs.folder_of(project.uri, runs.all_runs(project.uri)[0])
    damage(folder, name, files, bench.random(label), project.folder / "malicious")
    command = bench.litlab("resume", run_id, uri=project.uri, log=f"{label}.txt")
    if code := command.exit_code():
        lost.append(f"exit code {code}: {command.last_line}")
    lost += [f"{file} is not reported" for file in files if str(folder / "checkpoints" / file) not in command.output]
    if f"from {LAST}" in command.output or "Resuming run" not in command.output:
        lost.append("not resumed from an earlier checkpoint")
    lost += ["the pickle was executed"] if (project.folder / "malicious").exists() else []
    with record_errors(lost, "check"):
        lost += runs.differences(project.uri, run_id, reference.project.uri, reference.run_id)
    bench.step()
    return [f"{label}: {message}" for message in lost]


def _attack(bench: Bench, template: Project, run_id: str, files: tuple[str, ...]) -> list[str]:
    label = f"attack-{len(files)}"
    project, lost = bench.copy(template, label), list[str]()
    folder = runs.folder_of(project.uri, runs.all_runs(project.uri)[0])
    damage(folder, ATTACK, files, bench.random(label), project.folder / "malicious")
    command = bench.litlab("resume", run_id, uri=project.uri, log=f"{label}.txt")
    code = command.exit_code()
    lost += [] if code == 2 else [f"exit code {code}: {command.last_line}"]
    lost += [] if f"{folder / 'checkpoints' / LAST} was not loaded" in command.output else ["the file is not reported"]
    lost += [] if "--trust" in command.output else ["no reference to --trust"]
    lost += [] if (folder / "checkpoints" / LAST).is_file() else ["the file is gone"]
    lost += ["the pickle was executed"] if (project.folder / "malicious").exists() else []
    bench.step()
    return [f"{label}: {message}" for message in lost]


def _test(bench: Bench, reference: Reference, name: str) -> list[str]:
    label = f"test-{name}".replace(" ", "-")
    project = bench.copy(reference.project, label)
    run = next(run for run in runs.all_runs(project.uri) if run.info.run_id == reference.run_id)
    folder = runs.folder_of(project.uri, run)
    damage(folder, name, (BEST,), bench.random(label), project.folder / "malicious")
    command = bench.litlab("test", reference.run_id, uri=project.uri, log=f"{label}.txt")
    code, lost = command.exit_code(), list[str]()
    lost += [] if code == 2 else [f"exit code {code}: {command.last_line}"]
    lost += [] if str(folder / "checkpoints" / BEST) in command.output else ["the file is not reported"]
    lost += ["the pickle was executed"] if (project.folder / "malicious").exists() else []
    bench.step()
    return [f"{label}: {message}" for message in lost]
