"""Batches cut out of a dataset that lives on one device."""

from narformer_pyg.loader.device_loader import DeviceLoader
from narformer_pyg.loader.paired_batch_sampler import PairedBatchSampler

__all__ = ["DeviceLoader", "PairedBatchSampler"]
