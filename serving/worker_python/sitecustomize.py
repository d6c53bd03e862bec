"""Run by Python itself when a worker, or what forks them, starts: ``serving/jvm.py`` puts this folder on their path.

torch makes half a million objects when it is imported. To look through them for garbage again and again, as Python does
after every 700 that are new, takes a fifth of a second of each start of a worker, and finds nothing.
"""

import gc

gc.set_threshold(50_000, 20, 100)
