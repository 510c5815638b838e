r"""Converts models of transformers from their configurations, as they are.

::

    python benchmarks/transformers_models.py --output benchmarks/results/transformers_models.csv

Encoders, decoders with and without cache, encoder-decoders, vision, speech, state spaces, mixtures
of experts: each with its default configuration (four layers where those are large), built without
weights. A line has CPU seconds, FLOPs beside those of torch's flop counter where that runs,
parameters beside the module's, and what failed.

Needs transformers, and torchvision as ``scripts/export_torchvision.py`` says.
"""

from __future__ import annotations

import argparse
import csv
import time
import warnings
from pathlib import Path
from typing import Any

import torch
from torch.utils.flop_counter import FlopCounterMode

from narformer_pyg.convert import convert_torch
from narformer_pyg.convert.named_networks import import_torchvision

_TOKENS = torch.zeros(1, 32, dtype=torch.long, device="meta")
_TEXT = {"input_ids": _TOKENS}
# DeBERTa looks into the tokens for padding unless it has a mask.
_MASKED = {**_TEXT, "attention_mask": _TOKENS}
_PAIR = {**_TEXT, "decoder_input_ids": _TOKENS}
_IMAGE = {"pixel_values": torch.zeros(1, 3, 224, 224, device="meta")}
_SOUND = {"input_values": torch.zeros(1, 16_000, device="meta")}
_SPECTRUM = {
    "input_features": torch.zeros(1, 80, 3_000, device="meta"), "decoder_input_ids": _TOKENS,
}  # fmt: skip
_SHORT = {"num_hidden_layers": 4}
#: Kind, model, configuration, its options and the inputs.
MODELS: tuple[tuple[str, str, str, dict[str, Any], dict[str, torch.Tensor]], ...] = (
    ("encoder", "BertModel", "BertConfig", {}, _TEXT),
    ("encoder", "RobertaForSequenceClassification", "RobertaConfig", {}, _TEXT),
    ("encoder", "DistilBertModel", "DistilBertConfig", {}, _TEXT),
    ("encoder", "DebertaV2Model", "DebertaV2Config", {}, _MASKED),
    ("encoder", "ElectraModel", "ElectraConfig", {}, _TEXT),
    ("encoder", "AlbertModel", "AlbertConfig", {}, _TEXT),
    ("encoder", "ModernBertModel", "ModernBertConfig", {}, _TEXT),
    ("decoder", "GPT2LMHeadModel", "GPT2Config", {}, _TEXT),
    ("decoder", "GPT2LMHeadModel", "GPT2Config", {"use_cache": False}, _TEXT),
    ("decoder", "LlamaForCausalLM", "LlamaConfig", _SHORT, _TEXT),
    ("decoder", "MistralForCausalLM", "MistralConfig", _SHORT, _TEXT),
    ("decoder", "Qwen3ForCausalLM", "Qwen3Config", _SHORT, _TEXT),
    ("decoder", "Gemma2ForCausalLM", "Gemma2Config", _SHORT, _TEXT),
    ("decoder", "Phi3ForCausalLM", "Phi3Config", {**_SHORT, "pad_token_id": 0}, _TEXT),
    ("decoder", "OPTForCausalLM", "OPTConfig", {}, _TEXT),
    ("decoder", "BloomForCausalLM", "BloomConfig", {}, _TEXT),
    ("decoder", "GPTNeoXForCausalLM", "GPTNeoXConfig", _SHORT, _TEXT),
    ("mixture of experts", "MixtralForCausalLM", "MixtralConfig", _SHORT, _TEXT),
    ("state space", "MambaModel", "MambaConfig", _SHORT, _TEXT),
    ("state space", "Mamba2Model", "Mamba2Config", _SHORT, _TEXT),
    ("encoder-decoder", "T5ForConditionalGeneration", "T5Config", {}, _PAIR),
    ("encoder-decoder", "BartModel", "BartConfig", {}, _PAIR),
    ("speech", "WhisperModel", "WhisperConfig", {}, _SPECTRUM),
    ("speech", "Wav2Vec2Model", "Wav2Vec2Config", {}, _SOUND),
    ("speech", "HubertModel", "HubertConfig", {}, _SOUND),
    ("vision", "ViTModel", "ViTConfig", {}, _IMAGE),
    ("vision", "CLIPModel", "CLIPConfig", {}, {**_TEXT, **_IMAGE}),
    ("vision", "Dinov2Model", "Dinov2Config", {}, _IMAGE),
    ("vision", "SegformerModel", "SegformerConfig", {}, _IMAGE),
    ("vision", "Swinv2Model", "Swinv2Config", {}, _IMAGE),
    ("vision", "ConvNextModel", "ConvNextConfig", {}, _IMAGE),
)
FIELDS = (
    "kind", "model", "options", "seconds", "nodes", "flops", "counter_flops", "parameters",
    "module_parameters", "unknown_operators", "error",
)  # fmt: skip


def main() -> None:
    """Converts all models."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--output", type=Path, required=True, help="the table (CSV)")
    args = parser.parse_args()
    warnings.simplefilter("ignore")
    torch.set_num_threads(1)
    import_torchvision()
    rows = []
    for kind, model, config, options, inputs in MODELS:
        shown = " ".join(f"{name}={value}" for name, value in options.items())
        row: dict[str, Any] = {"kind": kind, "model": model, "options": shown}
        try:
            row.update(convert(model, config, options, inputs))
        except Exception as error:
            row["error"] = f"{type(error).__name__}: {error}".split("\n")[0][:200]
        rows.append(row)
        print(row, flush=True)
    with open(args.output, "w", encoding="utf-8", newline="") as file:
        writer = csv.DictWriter(file, FIELDS, restval="", lineterminator="\n")
        writer.writeheader()
        writer.writerows(rows)
    good = [row for row in rows if not row.get("error") and not row["unknown_operators"]]
    print(f"{len(good)} of {len(rows)} converted, every operator known")


def convert(
    model: str, config: str, options: dict[str, Any], inputs: dict[str, torch.Tensor]
) -> dict[str, Any]:
    """Converts a model and counts it once more with torch's counter."""
    import transformers

    with torch.device("meta"):
        module = getattr(transformers, model)(getattr(transformers, config)(**options))
    module = module.eval().requires_grad_(False)
    began = time.process_time()
    report = convert_torch(module, inputs).report
    row = {
        "seconds": round(time.process_time() - began, 2),
        "nodes": report.num_nodes,
        "flops": report.flops,
        "parameters": report.parameters,
        "module_parameters": sum(weight.numel() for weight in module.parameters()),
        "unknown_operators": " ".join(report.unknown_operators),
    }
    counter = FlopCounterMode(display=False)
    try:
        with counter:
            module(**inputs)
    except RuntimeError:  # of the two whose own code looks at values or element types
        return row
    return {**row, "counter_flops": counter.get_total_flops()}


if __name__ == "__main__":
    main()
