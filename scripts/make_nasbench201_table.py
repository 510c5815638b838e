"""Writes the NAS-Bench-201 tables that ship inside the package.

The source folder holds ``nasbench201_200ep.npz`` (labels at 200 epochs) and
``nasbench201_latency.npz`` (measured latencies), both in the benchmark's official cell order::

    python scripts/make_nasbench201_table.py --source path/to/folder

Three files are written; running the script twice gives the same bytes:

* ``narformer_pyg/spaces/data/nasbench201_order.npz``: the cell behind each official index,
* ``narformer_pyg/datasets/data/nasbench201.npz``: one float32 column per label,
* ``narformer_pyg/datasets/data/README.md``: columns, units, sources and licences.
"""

from __future__ import annotations

import argparse
import logging
from pathlib import Path

import numpy as np

from narformer_pyg._files import atomic_write
from narformer_pyg.datasets.nasbench201 import ESTIMATE, TARGETS
from narformer_pyg.spaces.nasbench201 import NUM_CELLS, NASBench201Cell

log = logging.getLogger("make_nasbench201_table")

PACKAGE = Path(__file__).resolve().parents[1] / "narformer_pyg"
ORDER_FILE = PACKAGE / "spaces" / "data" / "nasbench201_order.npz"
LABEL_FILE = PACKAGE / "datasets" / "data" / "nasbench201.npz"
README_FILE = LABEL_FILE.with_name("README.md")

# All readings below are of cells whose output does not depend on their input, which the phone's
# runtime can fold to a constant: they say nothing about the latency of the operations.
PIXEL3_MINIMUM_MS = 0.1

README = """\
# NAS-Bench-201 labels

`nasbench201.npz` holds one float32 column of {num_cells:,} values per label, in the official index
order of the benchmark; read it with `numpy.load(path, allow_pickle=False)`. The cell behind each
index is in `spaces/data/nasbench201_order.npz`. Labels of networks trained for 200 epochs are means
over the benchmark's seeds. `scripts/make_nasbench201_table.py` writes this file and the table.

| column | unit | kind | meaning |
|---|---|---|---|
{rows}

`latency_pixel3` is NaN for the {num_missing} cells whose published value is below
{minimum} ms: in all of them `none` operations cut every path from input to output, so that the
phone's runtime can fold the network to a constant. The phones `latency_samsung_a50`,
`latency_essential_ph_1` and `latency_samsung_s7` were read in whole milliseconds. Batch sizes are
part of the GPU names.

## Sources and licences

* The benchmark: X. Dong and Y. Yang, "NAS-Bench-201: Extending the Scope of Reproducible Neural
  Architecture Search", ICLR 2020, [arXiv 2001.00326](https://arxiv.org/abs/2001.00326); MIT
  licence.
* `cifar10valid_*`: through [gabro8a/NAS-Landscapes](https://github.com/gabro8a/NAS-Landscapes), MIT
  licence.
* `cifar10_test_acc`, `cifar100_test_acc`, `imagenet16_test_acc`: through
  [v-tao/nats-bench-landscape](https://github.com/v-tao/nats-bench-landscape).
* `latency_*`: H. Lee et al., "HELP: Hardware-Adaptive Efficient Latency Prediction for NAS via
  Meta-Learning", NeurIPS 2021, [HayeonLee/HELP](https://github.com/HayeonLee/HELP); MIT licence.
"""


def source_column(target: str) -> tuple[str, str]:
    """Returns the source file and the column in it that a target comes from."""
    if target.startswith("latency_"):
        return "nasbench201_latency.npz", target.removeprefix("latency_")
    name = target.replace("cifar100", "c100").replace("cifar10", "c10")
    name = name.replace("imagenet16", "in16").replace("train_time", "train_time_s")
    return "nasbench201_200ep.npz", name


def main() -> None:
    """Reads the source folder and writes the three files."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--source", type=Path, required=True, help="folder with the two .npz files")
    args = parser.parse_args()
    logging.basicConfig(level=logging.INFO, format="%(message)s")

    files = {}
    for file in ("nasbench201_200ep.npz", "nasbench201_latency.npz"):
        with np.load(args.source / file, allow_pickle=False) as content:
            files[file] = {name: content[name] for name in content.files}

    cells = [NASBench201Cell.from_str(str(a)) for a in files["nasbench201_200ep.npz"]["arch_str"]]
    code = np.array([cell.code for cell in cells], dtype=np.uint16)
    if not np.array_equal(np.sort(code), np.arange(NUM_CELLS)):
        raise ValueError(f"Expected 'arch_str' to hold each of the {NUM_CELLS} cells once")

    measured = {name: target for name, target in TARGETS.items() if target != ESTIMATE}
    columns, num_missing = {}, 0
    for name in measured:
        file, column = source_column(name)
        values = files[file][column].astype(np.float32)
        if name == "latency_pixel3":
            missing = values < PIXEL3_MINIMUM_MS
            values[missing], num_missing = np.nan, int(missing.sum())
        columns[name] = values

    rows = "\n".join(
        f"| `{t.name}` | {t.unit} | {t.kind} | {t.description} |" for t in measured.values()
    )
    readme = README.format(
        num_cells=NUM_CELLS, rows=rows, num_missing=num_missing, minimum=PIXEL3_MINIMUM_MS
    )
    with atomic_write(ORDER_FILE) as path:
        np.savez_compressed(path, code=code)
    with atomic_write(LABEL_FILE) as path:
        np.savez_compressed(path, **columns)
    with atomic_write(README_FILE) as path:
        path.write_text(readme, encoding="utf-8")
    for path in (ORDER_FILE, LABEL_FILE, README_FILE):
        log.info("wrote %s (%d bytes)", path.name, path.stat().st_size)
    log.info("latency_pixel3: %d values below %s ms set to NaN", num_missing, PIXEL3_MINIMUM_MS)


if __name__ == "__main__":
    main()
