"""Published experiments, as in sweeps/reproduction/published, for tests of their reproduction."""

OCCLUSION = """experiments:
- id: occlusion
  source: X
  runs:
    digits: {command: digits-mlp}
    hidden: {command: explain occlusion --block 4 --stride 4 --stroke 0.5, explains: digits}
  claims:
  - {says: minima lie on strokes, at_least: [hidden block_on_object, 1]}
"""
