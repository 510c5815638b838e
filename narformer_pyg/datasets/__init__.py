"""Datasets of architectures with measured labels."""

from narformer_pyg.datasets.extrapolation import extrapolate_accuracy
from narformer_pyg.datasets.fake_nas import FakeNAS
from narformer_pyg.datasets.from_table import FromTable
from narformer_pyg.datasets.nasbench101 import NASBench101
from narformer_pyg.datasets.nasbench201 import NASBench201
from narformer_pyg.datasets.onnx_latency import ONNXLatency
from narformer_pyg.datasets.split import Split
from narformer_pyg.datasets.target import Target
from narformer_pyg.datasets.timm import TimmAccuracy, TimmLatency, TimmTable

__all__ = [
    "FakeNAS",
    "FromTable",
    "NASBench101",
    "NASBench201",
    "ONNXLatency",
    "Split",
    "Target",
    "TimmAccuracy",
    "TimmLatency",
    "TimmTable",
    "extrapolate_accuracy",
]
