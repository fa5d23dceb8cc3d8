"""One thread at a time loads models and libraries, so that several runs may begin in threads of one process.

transformers fills itself while it is imported, and a thread that looks into it meanwhile does not find what is there a
moment later; matplotlib draws with settings of the whole process. Rounds run side by side.
"""

from __future__ import annotations

import threading

LOADING = threading.RLock()  # held while no callback is called, or one that starts a thread would wait for itself
