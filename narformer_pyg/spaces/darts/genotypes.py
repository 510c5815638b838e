"""Published genotypes of the DARTS search space."""

from __future__ import annotations

from narformer_pyg.spaces.darts.cell import DARTSGenotype

# The cells as their authors' releases give them: operation and node read, two for each node.
_PUBLISHED = {
    "DARTS_V1": (
        "sep_conv_3x3 1, sep_conv_3x3 0, skip_connect 0, sep_conv_3x3 1, "
        "skip_connect 0, sep_conv_3x3 1, sep_conv_3x3 0, skip_connect 2",
        "max_pool_3x3 0, max_pool_3x3 1, skip_connect 2, max_pool_3x3 0, "
        "max_pool_3x3 0, skip_connect 2, skip_connect 2, avg_pool_3x3 0",
    ),
    "DARTS_V2": (
        "sep_conv_3x3 0, sep_conv_3x3 1, sep_conv_3x3 0, sep_conv_3x3 1, "
        "sep_conv_3x3 1, skip_connect 0, skip_connect 0, dil_conv_3x3 2",
        "max_pool_3x3 0, max_pool_3x3 1, skip_connect 2, max_pool_3x3 1, "
        "max_pool_3x3 0, skip_connect 2, skip_connect 2, max_pool_3x3 1",
    ),
    "PDARTS": (
        "skip_connect 0, dil_conv_3x3 1, skip_connect 0, sep_conv_3x3 1, "
        "sep_conv_3x3 1, sep_conv_3x3 3, sep_conv_3x3 0, dil_conv_5x5 4",
        "avg_pool_3x3 0, sep_conv_5x5 1, sep_conv_3x3 0, dil_conv_5x5 2, "
        "max_pool_3x3 0, dil_conv_3x3 1, dil_conv_3x3 1, dil_conv_5x5 3",
    ),
    "PC_DARTS_cifar": (
        "sep_conv_3x3 1, skip_connect 0, sep_conv_3x3 0, dil_conv_3x3 1, "
        "sep_conv_5x5 0, sep_conv_3x3 1, avg_pool_3x3 0, dil_conv_3x3 1",
        "sep_conv_5x5 1, max_pool_3x3 0, sep_conv_5x5 1, sep_conv_5x5 2, "
        "sep_conv_3x3 0, sep_conv_3x3 3, sep_conv_3x3 1, sep_conv_3x3 2",
    ),
    "PC_DARTS_image": (
        "skip_connect 1, sep_conv_3x3 0, sep_conv_3x3 0, skip_connect 1, "
        "sep_conv_3x3 1, sep_conv_3x3 3, sep_conv_3x3 1, dil_conv_5x5 4",
        "sep_conv_3x3 0, skip_connect 1, dil_conv_5x5 2, max_pool_3x3 1, "
        "sep_conv_3x3 2, sep_conv_3x3 1, sep_conv_5x5 0, sep_conv_3x3 3",
    ),
}


def _read(cell: str) -> list[tuple[str, int]]:
    edges = (edge.split() for edge in cell.split(", "))
    return [(operation, int(node)) for operation, node in edges]


#: Genotypes of `DARTS <https://github.com/quark0/darts>`_ (first and second order), `P-DARTS
#: <https://github.com/chenxin061/pdarts>`_ and `PC-DARTS
#: <https://github.com/yuhuixu1993/PC-DARTS>`_ (found on CIFAR-10 and on ImageNet), under the names
#: of the releases.
#:
#: The parameters of their networks, without the second classifier, agree with published figures:
#:
#: ================  ==========================  ==================================================
#: genotype          parameters                  published
#: ================  ==========================  ==================================================
#: `DARTS_V2`        3,349,342                   3.349 million, README of DARTS
#: `DARTS_V2`        4,718,752 (ImageNet)        4.719 million, README of DARTS
#: `PDARTS`          3,433,798                   3,433,798, issue 7 of P-DARTS
#: `PC_DARTS_cifar`  3,634,678                   3.6 million, README of PC-DARTS
#: `PC_DARTS_image`  5,342,464 (ImageNet)        5.3 million, paper of PC-DARTS
#: ================  ==========================  ==================================================
#:
#: `DARTS_V1` has 3,169,414. Other papers give 3.3 million for the first order, and no release
#: gives a figure for this very genotype.
DARTS_GENOTYPES = {
    name: DARTSGenotype(_read(normal), _read(reduce))  # type: ignore[arg-type]
    for name, (normal, reduce) in _PUBLISHED.items()
}
