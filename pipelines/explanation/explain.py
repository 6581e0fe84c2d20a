"""`litlab explain`: looking inside a trained network; each way to look is a module of `pipelines.looking`."""

import importlib
from collections.abc import Sequence
from difflib import get_close_matches

from pipelines.runtime.errors import UserError

HELP = """usage: litlab explain WORD RUN_ID [--option value ...]

Looks inside the trained network of a run. Writes a picture and its numbers,
and keeps both as a child of the run, which is not changed.

  maximise     the input that a class or a unit answers to most
  adversarial  images changed a little, so that another class is seen
  occlusion    the probability of the class while a block is hidden
  saliency     how much each pixel matters to the class
  gradcam      where a convolution finds what speaks for the class
  filters      the weights of a convolution
  activations  what each convolution makes of an image
  embedding    test images in the plane, by the output of a layer

  RUN_ID               as printed by litlab fit; or --checkpoint FILE, a
                       checkpoint of litlab, or --torchvision NAME
  --image IMAGE ...    indices of the test set, or files
  --out DIR            where picture and numbers are written (explain)

litlab explain WORD --help says more: litlab explain maximise RUN_ID --class 7"""
WORDS = {
    "maximise": "maximise",
    "adversarial": "adversarial",
    "occlusion": "occlusion",
    "saliency": "attribution",
    "gradcam": "attribution",
    "filters": "layers",
    "activations": "layers",
    "embedding": "embedding",
}


def main(verb: str, argv: Sequence[str]) -> int:
    """`litlab explain WORD RUN_ID ...`."""
    if not argv or {argv[0]} & {"-h", "--help"}:
        print(HELP)
        return 0 if argv else 2
    word, *rest = argv
    if word not in WORDS:
        near = get_close_matches(word, WORDS, n=1)
        hint = f" (did you mean {near[0]}?)" if near else ""
        raise UserError(f"{word!r} is no way to look{hint}; the ways are {', '.join(WORDS)}")
    module = importlib.import_module(f"pipelines.explanation.{WORDS[word]}")
    return int(module.main(word, rest))
