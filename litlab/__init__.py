"""litlab from Python. Importing it costs nothing, and joins packages of the current project to litlab's."""

from litlab.packages import import_own_packages

import_own_packages()
