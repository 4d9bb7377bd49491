"""FILE.onnx, converted to a module of torch by onnx2torch (the extra `onnx`)."""

from __future__ import annotations

from pathlib import Path
from typing import Any, Final

from torch import fx

from codec.errors import ModelError
from codec.models.boundary import as_model_error, check_file, quiet

__all__ = ["ONNX_FILE", "OnnxNetwork", "load_onnx"]

ONNX_FILE: Final = ".onnx"


class OnnxNetwork(fx.GraphModule):
    """A network of a file: images (N, 3, H, W) -> what it returns.

    `input_size` is height and width of the images it was exported for, None where it takes any.
    Arithmetic of sizes (`Shape`, `Gather`, `Concat` … before a `Resize`) is done on tensors, which
    no tracer follows: `models.programs` records such a network at one size.
    """

    input_size: tuple[int, int] | None = None


def load_onnx(path: Path) -> OnnxNetwork:
    """Read a network.  The file holds no code; its operators become modules of torch.

    Raises:
        ModelError: the converter is not installed, or the file cannot be read or converted.
    """
    check_file(path)
    try:
        import onnx  # noqa: PLC0415 - an extra
        from onnx2torch import convert  # noqa: PLC0415 - likewise
    except ImportError as error:
        raise ModelError(
            f"model {str(path)!r} needs the package onnx2torch; "
            "pip install 'latent-motion-codec[onnx]'"
        ) from error
    with (
        quiet(),
        as_model_error(
            f"{path.name}: cannot be converted to a network of torch",
            "; export it with an older opset (13 is well supported), or from torch as a .pt2",
        ),
    ):
        proto = onnx.load(str(path))
        _share_weights(proto.graph)
        converted = convert(proto)
        network = OnnxNetwork(converted, converted.graph, "OnnxNetwork")
        sides = [side.dim_value for side in proto.graph.input[0].type.tensor_type.shape.dim[2:]]
        network.input_size = (sides[0], sides[1]) if len(sides) == 2 and all(sides) else None
    return network.float().eval()


def _share_weights(graph: Any) -> None:  # noqa: ANN401 - onnx has no types
    """Use equal weights by one name: exporters give each but the first by `Identity`, which the
    converter takes for no weight.
    """
    weights = {each.name for each in graph.initializer}
    results = {each.name for each in graph.output}
    same: dict[str, str] = {}
    for node in list(graph.node):
        for place, name in enumerate(node.input):
            node.input[place] = same.get(name, name)
        if (
            node.op_type == "Identity"
            and node.input[0] in weights
            and node.output[0] not in results
        ):
            same[node.output[0]] = node.input[0]
            graph.node.remove(node)
