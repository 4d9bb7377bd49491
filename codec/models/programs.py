"""Programs of `torch.export`, the way for every network of one's own: FILE.pt2 -> a module whose
graph is cut as it stands.

    torch.export.save(torch.export.export(model.eval(), (images,)), "nanodet.pt2")

Its values go by the names of the exported graph (`add_11`, `cat_4`) and its modules by theirs.
Nothing in a file is executed but operations of ATen: `models.archives` gives torch no more.
"""

from __future__ import annotations

import inspect
import io
import logging
from collections.abc import Callable
from pathlib import Path
from typing import Any, Final

import torch
from torch import fx, nn
from torch.utils._pytree import tree_flatten, tree_unflatten

from codec.errors import ModelError
from codec.models.archives import harmless_archive
from codec.models.boundary import as_model_error, quiet, read_file
from codec.models.onnx_files import OnnxNetwork
from codec.models.recording import recorded
from codec.models.tracing import TracedModel, image_inputs

__all__ = ["PROGRAM_FILE", "Program", "by_sample", "export", "load_program"]

PROGRAM_FILE: Final = ".pt2"
_TRAINING: Final = {
    **{"batch_norm": 5, "dropout": 2, "feature_dropout": 2, "alpha_dropout": 2, "rrelu": 3},
    "scaled_dot_product_attention": 4,
}
"""Operations that draw nothing where this argument is false or zero."""


class Program(nn.Module):
    """An exported program: images (N, 3, H, W) -> what the network returns.

    `batch` and `input_size` are what it was exported for, None where it takes any.  Images of a
    batch that is fixed go through it in batches of that size.
    """

    def __init__(
        self, graph: fx.GraphModule, batch: int | None, input_size: tuple[int, int] | None
    ) -> None:
        super().__init__()
        self.graph_module = graph
        self.batch, self.input_size = batch, input_size
        for module in self.modules():  # an exported graph is what it is, and refuses `eval()`
            module.training = False

    def forward(self, images: torch.Tensor) -> Any:  # noqa: ANN401 - whatever the network returns
        """Run the program.

        Raises:
            ModelError: the images do not come in batches of the program's size.
        """
        return by_sample(self.graph_module, (images,), self.batch)

    def traced(self, input_size: tuple[int, int]) -> TracedModel:
        """Return its graph, to be cut.

        Raises:
            ModelError: it was exported for another size.
        """
        if self.input_size not in {None, tuple(input_size)}:
            height, width = self.input_size or (0, 0)
            raise ModelError(
                f"the program was exported for images of {width}x{height}, "
                f"not {input_size[1]}x{input_size[0]}; give these, or export it for the others"
            )
        if self.batch is not None and self.input_size is not None:
            values = {node.name: node.meta.get("val") for node in self.graph_module.graph.nodes}
            return TracedModel(self.graph_module, values, lambda: values)
        batch, other = (self.batch, self.batch) if self.batch is not None else (2, 3)
        return TracedModel(
            self.graph_module,
            self._values_at(batch, input_size),
            lambda: self._values_at(other, input_size),
        )

    def _values_at(self, batch: int, input_size: tuple[int, int]) -> dict[str, Any]:
        """Compute shapes without arithmetic, and on the CPU, where the graph may make tensors."""
        from torch._subclasses.fake_tensor import FakeTensorMode  # noqa: PLC0415 - takes a second

        height, width = input_size
        found: dict[str, Any] = {}

        class Recorder(fx.Interpreter):
            def run_node(self, n: fx.Node) -> Any:  # noqa: ANN401 - fx's signature
                found[n.name] = value = super().run_node(n)
                return value

        device = next((tensor.device for tensor in self.graph_module.parameters()), "cpu")
        with (
            quiet(),
            torch.no_grad(),
            FakeTensorMode(allow_non_fake_inputs=True),
            as_model_error(f"the program does not run on {width}x{height} input, float32 RGB"),
        ):
            Recorder(self.graph_module).run(torch.empty(batch, 3, height, width, device=device))
        return found


def load_program(
    path: Path,
    *,
    device: str | torch.device = "cpu",
    trusted: bool = False,
    content: bytes | None = None,
) -> Program:
    """Read a program that `torch.export.save` has written, without executing code from it.

    Args:
        path: of the file.
        device: where it shall run.
        trusted: skip the check of `models.archives`; then the file may run any code.
        content: of the file, if it has been read.

    Raises:
        ModelError: there is no such file, it holds no program of one image, or one that could run
            code when it is read.
    """
    content = read_file(path) if content is None else content
    if not trusted:
        content = harmless_archive(content, path.name)
    if b"torch.ops.torchvision." in content:
        import torchvision  # noqa: F401, PLC0415 - its operations
    with (
        quiet(),
        torch.device("cpu"),
        torch.inference_mode(mode=False),
        as_model_error(f"{path.name}: cannot be read as an exported program"),
    ):
        exported = _loaded(content)
        return _as_program(exported, path.name, torch.device(device))


def _loaded(content: bytes) -> Any:  # noqa: ANN401 - torch's
    """Load a program.  What is wrong with it torch logs, with a traceback, and says nothing more in
    its error than that there is a log.
    """
    logged: list[BaseException] = []

    def keep(record: logging.LogRecord) -> bool:
        if record.exc_info and record.exc_info[1] is not None:
            logged.append(record.exc_info[1])
        return False

    log = logging.getLogger("torch.export")
    log.addFilter(keep)
    try:
        return torch.export.load(io.BytesIO(content))
    except Exception as error:
        raise (logged[-1] if logged else error) from error
    finally:
        log.removeFilter(keep)


def export(model: nn.Module, input_size: tuple[int, int], why: str) -> Program:
    """Make a program of a network that torch.fx cannot follow, for images of one size.

    Args:
        model: the network, whose weights it shares; of a file of ONNX for one image at a time.
        input_size: height and width of the images.
        why: torch.fx cannot, for the message.

    Raises:
        ModelError: torch.export cannot either.
    """
    kind = type(model).__name__
    device = next((tensor.device for tensor in model.parameters()), torch.device("cpu"))
    with (
        quiet(),
        torch.inference_mode(mode=False),
        torch.no_grad(),
        as_model_error(
            f"{why}; nor can {kind} be exported",
            "; give frames of a size that it takes (where it has one, without --native), or cut a "
            "part of it that decides nothing by its values, or a variant of it",
        ),
    ):
        images = torch.zeros(2, 3, *input_size, device=device)
        if isinstance(model, OnnxNetwork):
            graph = recorded(model, images[:1])
            return Program(graph, 1, input_size).requires_grad_(requires_grad=False)
        try:
            batch = torch.export.Dim("batch")
            exported = torch.export.export(model, (images,), dynamic_shapes=({0: batch},))
        except Exception:  # the network may well be made for one image at a time
            exported = torch.export.export(model, (images[:1],))
        return _as_program(exported, kind, device)


def _as_program(exported: Any, name: str, device: torch.device) -> Program:  # noqa: ANN401 - torch's
    if any(
        isinstance(node.target, torch._ops.OpOverload) and node.target._schema.is_mutable
        for node in exported.graph.nodes
    ):
        exported = exported.run_decompositions({})  # which writes without overwriting
    signature = exported.graph_signature
    changed = [*signature.buffers_to_mutate.values(), *signature.user_inputs_to_mutate.values()]
    if changed:
        raise ModelError(
            f"{name}: changes {changed[0]} when it runs, which its halves would not do alike; "
            "export the model in evaluation mode"
        )
    if any(tensor.device != device for tensor in exported.state_dict.values()):
        from torch.export.passes import move_to_device_pass  # noqa: PLC0415 - for GPUs only

        exported = move_to_device_pass(exported, device)
    # Checks of the input would be Python of the file.
    options = (
        {"check_guards": False}
        if "check_guards" in inspect.signature(exported.module).parameters
        else {}
    )
    module = exported.module(**options)
    _refuse_chance(module, name)
    (image,) = image_inputs(module)
    shape = image.meta["val"].shape
    if len(shape) != 4 or shape[1] != 3 or image.meta["val"].dtype != torch.float32:
        raise ModelError(
            f"{name}: takes {tuple(shape)} of {image.meta['val'].dtype}, "
            "expected float32 images (N, 3, H, W)"
        )
    batch, height, width = (
        side if isinstance(side, int) else None for side in (shape[0], shape[2], shape[3])
    )
    size = (height, width) if height is not None and width is not None else None
    return Program(_plain(module, exported), batch, size).requires_grad_(requires_grad=False)


def _plain(module: fx.GraphModule, exported: Any) -> fx.GraphModule:  # noqa: ANN401 - torch's
    """Give a program's graph the arguments and results of an ordinary one, without hooks."""
    graph = fx.Graph()
    copies: dict[fx.Node, fx.Node] = {}
    for node in module.graph.nodes:
        if node.op == "output":
            results = [
                copies[result] if isinstance(result, fx.Node) else result
                for result in tree_flatten(node.args[0])[0]
            ]
            graph.output(tree_unflatten(results, exported.call_spec.out_spec))
        elif node.op != "call_module":
            copies[node] = graph.node_copy(node, copies.__getitem__)
    return fx.GraphModule(module, graph, "Program")


def _refuse_chance(module: fx.GraphModule, name: str) -> None:
    for node in module.graph.nodes:
        if not isinstance(node.target, torch._ops.OpOverload):
            continue
        operation = node.target._schema.name.partition("::")[2]
        place = _TRAINING.get(operation)
        if place is not None and (
            (len(node.args) > place and node.args[place]) or node.kwargs.get("dropout_p")
        ):
            raise ModelError(
                f"{name}: {node.name} is in training mode; call .eval() before exporting"
            )
        if place is None and torch.Tag.nondeterministic_seeded in node.target.tags:
            raise ModelError(
                f"{name}: draws random numbers when it runs ({node.name}), so that every call "
                "gives another output"
            )


def by_sample(
    function: Callable[..., Any], tensors: tuple[torch.Tensor, ...], batch: int | None
) -> Any:  # noqa: ANN401 - what the function returns
    """Call a function of tensors that takes batches of one size only, and join its results.

    Raises:
        ModelError: the tensors do not come in such batches, or results cannot be joined.
    """
    if batch is None or len(tensors[0]) == batch:
        return function(*tensors)
    count = len(tensors[0])
    if count % batch or not count:
        raise ModelError(
            f"{count} images, and the program was exported for batches of {batch}; "
            "give a multiple, or export it with a dynamic batch"
        )
    parts = [
        tree_flatten(function(*(tensor[first : first + batch] for tensor in tensors)))
        for first in range(0, count, batch)
    ]
    joined = []
    for results in zip(*(leaves for leaves, _ in parts), strict=True):
        for result in results:
            if not isinstance(result, torch.Tensor) or result.shape[:1] != (batch,):
                found = tuple(result.shape) if isinstance(result, torch.Tensor) else result
                raise ModelError(
                    f"the program returns {found} for a batch of {batch}, which cannot be joined "
                    f"over {count} images; give {batch} at a time"
                )
        joined.append(torch.cat(results))
    return tree_unflatten(joined, parts[0][1])
