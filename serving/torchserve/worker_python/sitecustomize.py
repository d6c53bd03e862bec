"""Python imports this module when a worker or the fork server starts, because ``jvm.py`` puts its folder on their path.

Importing torch allocates half a million objects. Python's default, a garbage collection for every 700 new objects, adds
a fifth of a second to each start and frees nothing.
"""

import gc

gc.set_threshold(50_000, 20, 100)
