"""Makes torch_made.bin, a real file of torch.save for the tests of the reader. Made with torch
2.13.0, CPU build.

    python tests/data/make_torch_bin.py

Every kind of tensor that a state dict may hold: shared storages, views with offsets, transposed and
expanded tensors, a scalar, an empty tensor, a Parameter, and each dtype. The values are stated
again, by NumPy, in test_weights_unpickle.py.
"""

from collections import OrderedDict
from pathlib import Path

import torch


def main() -> None:
    base = torch.arange(24, dtype=torch.float32)
    state = OrderedDict(
        {
            "contiguous": base.clone().reshape(2, 3, 4),
            "shared_head": base[:6].view(2, 3),
            "shared_tail": base[6:].view(3, 6),
            "transposed": base.reshape(4, 6).t(),
            "every_other": base[1::2],
            "expanded": torch.tensor([1.5, -2.0]).expand(3, 2),
            "channels_last": base.clone()
            .reshape(1, 2, 3, 4)
            .contiguous(memory_format=torch.channels_last),
            "scalar": torch.tensor(-0.0),
            "empty": torch.zeros(0, 3),
            "parameter": torch.nn.Parameter(torch.tensor([1.0, float("nan"), float("inf")])),
            "half": base[:5].half() / 3,
            "bfloat16": base[:5].bfloat16() / 3,
            "double": base[:5].double() / 3,
            "int64": torch.tensor([2**40, -1]),
            "int32": torch.tensor([2**30, -1], dtype=torch.int32),
            "int16": torch.tensor([2**14, -1], dtype=torch.int16),
            "int8": torch.tensor([100, -1], dtype=torch.int8),
            "uint8": torch.tensor([200, 1], dtype=torch.uint8),
            "bool": torch.tensor([True, False]),
        }
    )
    state._metadata = OrderedDict({"": {"version": 1}})  # as Module.state_dict() leaves it
    torch.save(state, Path(__file__).with_name("torch_made.bin"))


if __name__ == "__main__":
    main()
