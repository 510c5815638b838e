"""Batches cut out of a dataset that lives on one device."""

from narformer_pyg.loader.device_loader import DeviceLoader
from narformer_pyg.loader.paired_batch_sampler import PairedBatchSampler
from narformer_pyg.loader.variant_batch_sampler import VariantBatchSampler

__all__ = ["DeviceLoader", "PairedBatchSampler", "VariantBatchSampler"]
