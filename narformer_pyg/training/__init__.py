"""Training of predictors: needs the extra ``train`` (``pip install "narformer-pyg[train]"``)."""

try:
    import lightning.pytorch  # noqa: F401
except ModuleNotFoundError as error:
    if error.name not in ("lightning", "lightning.pytorch"):
        raise
    raise ImportError(
        "narformer_pyg.training needs Lightning; install it with "
        "'pip install \"narformer-pyg[train]\"'"
    ) from error

from narformer_pyg._checks import resolve_device
from narformer_pyg.training.fit import FitResult, fit
from narformer_pyg.training.labels import label_scale
from narformer_pyg.training.metrics import acc_within, all_metrics, kendall_tau, mape, spearman
from narformer_pyg.training.module import PredictorModule
from narformer_pyg.training.prediction import predict
from narformer_pyg.training.recipes import (
    BEST,
    CELL_RECIPES,
    LATENCY,
    LATENCY_PAPER,
    LATENCY_RECIPES,
    PAPER,
    QUICK,
    RECIPES,
    Recipe,
    get_recipe,
)
from narformer_pyg.training.report import format_means
from narformer_pyg.training.run import RunResult, free_folder, train
from narformer_pyg.training.task import (
    Task,
    latency_dataset,
    latency_splits,
    latency_task,
    nasbench201_task,
)

__all__ = [
    "BEST",
    "CELL_RECIPES",
    "LATENCY",
    "LATENCY_PAPER",
    "LATENCY_RECIPES",
    "PAPER",
    "QUICK",
    "RECIPES",
    "FitResult",
    "PredictorModule",
    "Recipe",
    "RunResult",
    "Task",
    "acc_within",
    "all_metrics",
    "fit",
    "format_means",
    "free_folder",
    "get_recipe",
    "kendall_tau",
    "label_scale",
    "latency_dataset",
    "latency_splits",
    "latency_task",
    "mape",
    "nasbench201_task",
    "predict",
    "resolve_device",
    "spearman",
    "train",
]
