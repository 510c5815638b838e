"""What tests of matrix products share."""

from __future__ import annotations

from typing import Any

import torch
from torch.utils._python_dispatch import TorchDispatchMode

_PRODUCTS = {"mm", "addmm", "bmm", "baddbmm", "baddbmm_"}


class RecordedProducts(TorchDispatchMode):
    """Records in which precision oneDNN may compute each matrix product, in both directions."""

    def __init__(self) -> None:
        super().__init__()
        self.settings: list[str] = []

    def __torch_dispatch__(
        self, func: Any, types: Any, args: Any = (), kwargs: dict[str, Any] | None = None
    ) -> Any:
        if func.overloadpacket.__name__ in _PRODUCTS:
            self.settings.append(torch.backends.mkldnn.matmul.fp32_precision)
        return func(*args, **(kwargs or {}))
