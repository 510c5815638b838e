"""Writes the operator vocabularies that ship inside the package.

    python scripts/make_operator_vocabulary.py

An id is a row of ``narformer_pyg/vocabulary/data/*.json``. Rows that are there keep their place and
their slots; operators that the installed onnx knows and the table does not are added at the end
(delete a file to begin anew, which moves ids and makes old graphs and checkpoints unreadable).
"""

from __future__ import annotations

import argparse
import json
import logging
from pathlib import Path

import onnx.defs

from narformer_pyg._files import atomic_write
from narformer_pyg.vocabulary.operator_vocabulary import INPUT, RESERVED, UNKNOWN

log = logging.getLogger("make_operator_vocabulary")

DATA = Path(__file__).resolve().parents[1] / "narformer_pyg" / "vocabulary" / "data"

# The operators of the paper in the order of its authors' release, which spells MatMul so that it
# never matches; the slots keep the first element of a tuple, and all of a permutation.
CONV = "kernel stride pad dilation group bias"
PAPER_CONV = "kernel stride pad_attribute dilation group bias"
NNLQP = {
    "Conv": PAPER_CONV, "Relu": "", "Add": "", "Sigmoid": "", "Reshape": "",
    "MaxPool": "kernel stride pad_attribute", "Split": "", "GlobalAveragePool": "", "Gemm": "bias",
    "Transpose": "perm_0 perm_1 perm_2 perm_3 perm_4 perm_5 perm_6 perm_7", "Upsample": "",
    "BatchNormalization": "", "Mul": "", "Concat": "", "Flatten": "",
    "AveragePool": "kernel stride pad_attribute", "Cast": "", "MatMul": "",
    "ReduceMean": "", "Pow": "",
    "Slice": "", "Div": "", "Sub": "", "Sqrt": "", "Clip": "", "Softmax": "", "Tanh": "",
    "ConvTranspose": f"{PAPER_CONV} output_padding",
}  # fmt: skip
NNLQP_WIDTH = 32

# The slots of a family, then its operators; those of com.microsoft have a dot in front.
FAMILIES = {
    f"{CONV} output_padding kernel_last": (
        "Conv ConvTranspose ConvInteger QLinearConv DeformConv CausalConvWithState .FusedConv "
        ".QLinearConv .NhwcConv .NhwcFusedConv .ConvTransposeWithDynamicPads"
    ),
    "kernel stride pad dilation ceil_mode count_include_pad norm_order kernel_last": (
        "MaxPool AveragePool LpPool MaxUnpool GlobalLpPool Col2Im .QLinearAveragePool .NhwcMaxPool "
        ".MaxpoolWithMask"
    ),
    "contracted bias trans_a trans_b constant_operands operand_rank bits block_size": (
        "Gemm MatMul MatMulInteger QLinearMatMul Einsum .FusedGemm .QGemm .GemmFastGelu "
        ".GemmFloat8 .FusedMatMul .TransposeMatMul .FusedMatMulActivation .MatMulNBits .MatMulBnb4 "
        ".MatMulFpQ4 .MatMulInteger16 .MatMulIntegerToFloat .DynamicQuantizeMatMul "
        ".SparseToDenseMatMul .QOrderedMatMul .GatherBlockQuantized"
    ),
    "hidden_size input_size num_directions sequence_length bias linear_before_reset layout": (
        "LSTM GRU RNN .DynamicQuantizeLSTM .AttnLSTM"
    ),
    "num_heads num_kv_heads head_size causal query_length key_length has_mask has_past": (
        "Attention RotaryEmbedding LinearAttention .Attention .MultiHeadAttention .QAttention "
        ".GroupQueryAttention .DecoderAttention .DecoderMaskedMultiHeadAttention "
        ".DecoderMaskedSelfAttention .PackedAttention .PackedMultiHeadAttention .PagedAttention "
        ".SparseAttention .LongformerAttention .LinearAttention .RotaryEmbedding "
        ".GemmaRotaryEmbedding .GatedRelativePositionBias .RelativePositionBias"
    ),
    "axis normalized_size bias num_groups norm_order window constant_operands": (
        "LayerNormalization BatchNormalization InstanceNormalization GroupNormalization "
        "RMSNormalization LpNormalization MeanVarianceNormalization LRN .SkipLayerNormalization "
        ".SkipSimplifiedLayerNormalization .EmbedLayerNormalization .QEmbedLayerNormalization "
        ".GroupNorm .SkipGroupNorm .QOrderedLayerNormalization"
    ),
    "first_axis num_axes keepdims reduced_size": (
        "ReduceL1 ReduceL2 ReduceLogSum ReduceLogSumExp ReduceMax ReduceMean ReduceMin ReduceProd "
        "ReduceSum ReduceSumSquare ArgMax ArgMin GlobalAveragePool GlobalMaxPool "
        ".QLinearGlobalAveragePool .QLinearReduceMean .ReduceSumInteger"
    ),
    "axis axis_size": (
        "Softmax LogSoftmax Hardmax CumSum CumProd ReverseSequence DFT STFT .BiasSoftmax "
        ".QLinearSoftmax .Rfft .Irfft"
    ),
    "num_inputs constant_operands operand_size operand_rank": (
        "Add Sub Mul Div Pow Mod Max Min Mean Sum And Or Xor Equal Greater GreaterOrEqual Less "
        "LessOrEqual Where PRelu BitShift BitwiseAnd BitwiseOr BitwiseXor SwiGLU .BiasGelu "
        ".FastGelu .BiasAdd .BiasDropout .BiasSplitGelu .QLinearAdd .QLinearMul .QLinearWhere "
        ".ComplexMul .ComplexMulConj .MulInteger .GatedAdd .SwiGLU"
    ),
    "perm_0 perm_1 perm_2 perm_3 perm_4 perm_5 perm_6 perm_7": "Transpose",
    "input_rank first_axis num_axes": (
        "Reshape Flatten Squeeze Unsqueeze Expand Tile CenterCropPad .ExpandDims"
    ),
    "axis num_inputs num_outputs axis_size": (
        "Concat Split SplitToSequence ConcatFromSequence SequenceConstruct .QLinearConcat"
    ),
    "first_axis num_axes step": "Slice",
    "mode num_padded_axes padded_elements": "Pad .Pad",
    "axis index_elements batch_dims constant_operands rows": (
        "Gather GatherElements GatherND Scatter ScatterElements ScatterND TensorScatter OneHot "
        "Compress .GatherND .TorchEmbedding"
    ),
    "axis k axis_size": "TopK Unique .Unique .BeamSearch .GreedySearch .Sampling",
    "mode scale scale_first": "Resize Upsample GridSample AffineGrid RoiAlign MaxRoiPool "
    ".CropAndResize .GridSample",
    "block_size mode": "DepthToSpace SpaceToDepth",
    "to": "Cast CastLike BitCast",
    "axis operand_size block_size to": (
        "QuantizeLinear DequantizeLinear DynamicQuantizeLinear .QuantizeLinear .DequantizeLinear "
        ".QuantizeBFP .DequantizeBFP"
    ),
    "num_inputs num_outputs body_nodes": "If Loop Scan SequenceMap",
    "num_inputs num_outputs k": ".MoE .QMoE",
}


def standard_operators() -> list[str]:
    """Returns the operators of all domains that onnx itself defines, ONNX's own first."""
    schemas = {(schema.domain, schema.name) for schema in onnx.defs.get_all_schemas_with_history()}
    return [name if domain == "" else f"{domain}::{name}" for domain, name in sorted(schemas)]


def microsoft_operators() -> list[str]:
    """Returns those of ONNX Runtime's domain, where it is installed."""
    try:
        from onnxruntime.capi.onnxruntime_pybind11_state import get_all_operator_schema
    except ImportError:
        log.warning("onnxruntime is not installed: no new operators of com.microsoft")
        return []
    names = {schema.name for schema in get_all_operator_schema() if schema.domain == MICROSOFT}
    return [f"{MICROSOFT}::{name}" for name in sorted(names)]


MICROSOFT = "com.microsoft"


def write(name: str, width: int | None, rows: list[list[str]]) -> None:
    """Writes one table, a row a line; without a width, every id has its place in the code."""
    lines = ",\n".join(f"    {json.dumps(row)}" for row in rows)
    width = len(rows) if width is None else width
    text = f'{{\n  "width": {width},\n  "operators": [\n{lines}\n  ]\n}}\n'
    with atomic_write(DATA / f"{name}.json") as temporary:
        temporary.write_text(text, "utf-8")
    log.info("%s: %d ids", name, len(rows))


def main() -> None:
    """Writes both tables."""
    argparse.ArgumentParser(description=__doc__.split("\n")[0]).parse_args()
    logging.basicConfig(level=logging.INFO, format="%(message)s")
    rows = [[operator, *slots.split()] for operator, slots in NNLQP.items()]
    rows += [[RESERVED]] * (NNLQP_WIDTH - len(rows)) + [[INPUT], [UNKNOWN]]
    write("nnlqp", NNLQP_WIDTH, rows)

    slots = {}
    for names, operators in FAMILIES.items():
        for operator in operators.split():
            operator = f"{MICROSOFT}::{operator[1:]}" if operator[0] == "." else operator
            assert operator not in slots, operator
            slots[operator] = names.split()
    path = DATA / "onnx.json"
    rows = json.loads(path.read_text("utf-8"))["operators"] if path.exists() else []
    rows = rows or [[INPUT], [UNKNOWN]]
    known = {row[0] for row in rows}
    operators = standard_operators() + microsoft_operators()
    rows += [[name, *slots.get(name, [])] for name in operators if name not in known]
    missing = set(slots) - {row[0] for row in rows}
    if missing:
        raise SystemExit(f"No such operators: {', '.join(sorted(missing))}")
    write("onnx", None, rows)


if __name__ == "__main__":
    main()
