"""Draw figures with few pixels: importing this module sets the resolution of litlab's figures in the process.

Most tests save figures that they do not look at. The fixture `full_size_figures` has the size of the users' figures.
The tests, warm processes (`tests.warm`) and the workers of sweeps import it; a Python that a test starts anew does not.
"""

from pipelines.runtime import figure_style

STYLE_FILE = figure_style.STYLE_FILE  # the users'
DOTS_PER_INCH = 60

figure_style.STYLE_FILE = [STYLE_FILE, {"savefig.dpi": DOTS_PER_INCH}]  # type: ignore[assignment]
