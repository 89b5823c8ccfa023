"""fairseq is imported here, since its own import warns."""

from __future__ import annotations

import warnings

with warnings.catch_warnings():
    warnings.simplefilter("ignore")
    import mtmoe.optim.fairseq_adam  # noqa: F401
