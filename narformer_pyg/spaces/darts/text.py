"""DARTS' notation of genotypes, read without running it."""

from __future__ import annotations

import ast
from typing import Any

from narformer_pyg.errors import ConversionError
from narformer_pyg.spaces._checks import check_text

# Longer than any genotype with all spaces that a formatter may add; keeps the parser safe.
_MAX_LENGTH = 10_000
_FIELDS = ("normal", "normal_concat", "reduce", "reduce_concat")
_FORMAT = (
    "Genotype(normal=[('sep_conv_3x3', 0), ...], normal_concat=range(2, 6), "
    "reduce=[('max_pool_3x3', 0), ...], reduce_concat=range(2, 6))"
)


def parse_genotype(text: str) -> dict[str, Any]:
    """Returns the four fields of a genotype's text, without checking their contents."""
    if len(check_text("text", text)) > _MAX_LENGTH:
        raise ConversionError(
            f"Expected 'text' to be a genotype, at most {_MAX_LENGTH} characters long (got "
            f"{len(text)}: {text!r:.80})"
        )
    try:
        call = ast.parse(text.strip(), mode="eval").body
    # The parser's own limits raise the last two.
    except (SyntaxError, ValueError, RecursionError, MemoryError) as error:
        reason = error.msg if isinstance(error, SyntaxError) else str(error) or "too deeply nested"
        raise ConversionError(
            f"Expected 'text' to be of the form {_FORMAT} (got {text!r:.200}: {reason})"
        ) from error
    if not isinstance(call, ast.Call) or _name(call) != "Genotype" or call.args:
        raise ConversionError(f"Expected 'text' to be of the form {_FORMAT} (got {text!r:.200})")
    names = [str(keyword.arg) for keyword in call.keywords]
    if sorted(names) != sorted(_FIELDS):
        raise ConversionError(
            f"Expected 'text' to name each of {', '.join(_FIELDS)} once, as in {_FORMAT} (got "
            f"{', '.join(names) or 'no names'} in {text!r:.200})"
        )
    values = zip(names, (keyword.value for keyword in call.keywords), strict=True)
    return {name: _read(name, value, text.strip()) for name, value in values}


def _read(field: str, node: ast.expr, text: str) -> Any:
    """Returns the constants of a list or a tuple, or a range of nodes."""
    is_concat = field.endswith("_concat")
    reason: Exception | None = None
    try:
        if is_concat and isinstance(node, ast.Call) and not node.keywords:
            if _name(node) == "range":
                return range(*(ast.literal_eval(argument) for argument in node.args))
        elif isinstance(value := ast.literal_eval(node), (list, tuple)):
            return value
    except (ValueError, TypeError, SyntaxError, RecursionError, MemoryError) as error:
        reason = error
    form = "range(2, 6)" if is_concat else "a list of constants"
    raise ConversionError(
        f"Expected '{field}' to be written as {form}, as in {_FORMAT} (got "
        f"{ast.get_source_segment(text, node) or '':.100})"
    ) from reason


def _name(call: ast.Call) -> str | None:
    return call.func.id if isinstance(call.func, ast.Name) else None
