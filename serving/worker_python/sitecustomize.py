"""Run by Python itself when a worker starts, as ``serving/jvm.py`` puts this folder on the workers' path.

torch makes half a million objects when it is imported. To look through them for garbage again and again, as Python does
after every 700 that are new, takes a fifth of a second of each start of a worker, and finds nothing.
"""

import gc

gc.set_threshold(50_000, 20, 100)
