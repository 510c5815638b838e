"""Splits of datasets whose graphs belong to families."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
import torch
from torch import Tensor

from narformer_pyg._checks import check_seed
from narformer_pyg.datasets.split import Split, draw_in_groups


class GroupedSplits:
    """The splits of a dataset that says the family of each graph, and what has to stay together."""

    @property
    def families(self) -> list[str]:
        """The family of each graph; an empty text where none is known."""
        raise NotImplementedError

    def _units(self) -> Sequence[str]:
        """Returns a text that graphs have in common if they are in the same set always."""
        raise NotImplementedError

    def in_domain_split(
        self, test_share: float = 0.1, val_share: float = 0.0, seed: int = 0
    ) -> Split:
        r"""Draws training, validation and test graphs from every family.

        The shares are those of each family, and the test graphs do not depend on
        :obj:`val_share`. All measurements of one network are in the same set.
        """
        return draw_in_groups(self._groups(), test_share, val_share, seed, self._units())

    def leave_family_out(self, family: str, val_share: float = 0.0, seed: int = 0) -> Split:
        """Tests on one family and trains on all others, of which a share can validate."""
        groups = self._groups()
        if family not in groups or len(groups) < 2:
            raise ValueError(
                f"Expected 'family' to be one of several (got {family!r}, and the families "
                f"{', '.join(map(repr, groups))})"
            )
        test = groups.pop(family)
        rest = draw_in_groups(groups, 0.0, val_share, seed, self._units())
        return Split(train=rest.train, val=rest.val, test=test, seed=seed)

    def family_folds(
        self, num_folds: int = 10, val_share: float = 0.0, seed: int = 0
    ) -> list[Split]:
        r"""Returns splits that test on whole families, each family in one of them.

        Raises:
            ValueError: If there are fewer families than folds, or a number is out of range.
        """
        check_seed(seed)
        groups = self._groups()
        if not 2 <= num_folds <= len(groups):
            raise ValueError(
                f"Expected 'num_folds' to be between 2 and {len(groups)}, the number of families "
                f"(got {num_folds})"
            )
        names = list(groups)
        order = np.random.default_rng(seed).permutation(len(names))
        splits = []
        for fold in range(num_folds):
            held = {names[i] for i in order[fold::num_folds]}
            rest = {name: members for name, members in groups.items() if name not in held}
            drawn = draw_in_groups(rest, 0.0, val_share, seed, self._units())
            test = torch.cat([groups[name] for name in sorted(held)]).sort().values
            splits.append(Split(train=drawn.train, val=drawn.val, test=test, seed=seed))
        return splits

    def _groups(self) -> dict[str, Tensor]:
        members: dict[str, list[int]] = {}
        for i, family in enumerate(self.families):
            members.setdefault(family, []).append(i)
        return {family: torch.tensor(members[family]) for family in sorted(members)}
