"""Which build of the compiled core this process works by, if it is another than the installed one.

Imported before all that imports the package: a lean process, too, gets it by its environment.
"""

from . import cores

cores.load()
