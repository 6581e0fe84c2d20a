"""`litlab completion`: the script completes verbs, options, experiments and files, without a process of litlab."""

import shutil
import subprocess

import pytest

from pipelines.commands.completion import SHELLS

BASH = shutil.which("bash")


def complete(script: str, *words: str) -> list[str]:
    """Return what bash suggests for the last word."""
    line = " ".join(f"'{word}'" for word in words)
    call = f'COMP_WORDS=({line}); COMP_CWORD={len(words) - 1}; _shtab_litlab; printf "%s\\n" "${{COMPREPLY[@]}}"'
    program = [BASH, "--norc", "-c", f"{script}\n{call}"]
    done = subprocess.run(program, env={"PATH": ""}, capture_output=True, text=True, check=True)
    return done.stdout.split()


@pytest.mark.skipif(BASH is None, reason="needs bash")
def test_bash_completes_verbs_options_values_experiments_and_files(litlab, tmp_path):
    script = litlab("completion", "bash").out
    (tmp_path / "seven.png").touch()
    assert complete(script, "litlab", "rep") == ["report", "reproduce"]
    assert complete(script, "litlab", "--v") == ["--version"]
    assert complete(script, "litlab", "fit", "digits-") == ["digits-convnet", "digits-mlp"]
    assert complete(script, "litlab", "fit", "digits-mlp", "--model.lr", "0.1", "--see") == [
        "--seed_everything",
        "--seeds",
    ]
    assert complete(script, "litlab", "sweep", "sta") == ["status"]
    assert complete(script, "litlab", "sweep", "circles", "--tri") == ["--trials", "--trial-timeout"]
    assert complete(script, "litlab", "compare", "--format", "j") == ["json"]
    assert complete(script, "litlab", "explain", "sal") == ["saliency"]
    assert complete(script, "litlab", "explain", "occlusion", "RUN_ID", "--st") == ["--stride", "--stroke"]
    assert complete(script, "litlab", "predict", "RUN_ID", f"{tmp_path}/se") == [f"{tmp_path}/seven.png"]


@pytest.mark.parametrize("shell", SHELLS)
def test_a_script_is_printed_for_each_shell(litlab, shell):
    outcome = litlab("completion", shell)
    assert outcome.code == 0
    assert "--seed_everything" in outcome.out


def test_an_unknown_shell_is_refused(litlab):
    outcome = litlab("completion", "fish")
    assert outcome.code == 2
    assert "invalid choice: 'fish'" in outcome.err
