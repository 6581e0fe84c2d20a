"""The checks of `litlab doctor`, one subject per file; none but those of `torch_process` import torch.

Imported by commands and by sweeps.
"""
