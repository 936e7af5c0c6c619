"""One thread for every test here: times and bits do not depend on how many cores there are."""

from __future__ import annotations

import torch

torch.set_num_threads(1)
