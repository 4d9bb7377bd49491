"""Exported programs: files of one's own networks, cut as they stand."""

from __future__ import annotations

import io
import json
import os
import pickle
import zipfile
from pathlib import Path

import pytest
import torch
from networks import Pyramid, assert_same, images
from torch import nn
from torch.nn import functional

from codec.errors import ModelError
from codec.models.archives import (
    _check_operation,
    _check_size,
    _NotHarmless,
    harmless_archive,
)
from codec.models.networks import open_network
from codec.models.programs import Program, load_program
from codec.models.sources import check_model, load_model, model_name
from codec.models.split_points import describe_costs, describe_splits
from codec.models.submodels import split_model


class Written(nn.Module):
    """Overwrites, broadcasts a constant and returns nested results."""

    def __init__(self):
        super().__init__()
        self.conv = nn.Conv2d(3, 4, 3, 2, 1)
        self.norm = nn.BatchNorm2d(4)
        self.up = nn.ConvTranspose2d(4, 4, 2, 2)
        self.register_buffer("slope", torch.arange(4.0).view(1, 4, 1, 1), persistent=False)

    def forward(self, x):
        y = self.norm(self.conv(x)).relu_()
        y += self.slope
        z = self.up(y)[:, :, 1:, 2:]
        return {"fine": z, "coarse": [y.mean((2, 3)), y * torch.tensor(2.0)]}


def exported(model, path, size=(16, 24), batch=1, **options):
    program = torch.export.export(model.eval(), (torch.zeros(batch, 3, *size),), **options)
    torch.export.save(program, path)
    return path


def test_program_equals_its_network(tmp_path):
    model = Pyramid()
    program = load_model(str(exported(model, tmp_path / "net.pt2")))
    assert isinstance(program, Program)
    assert (program.batch, program.input_size) == (1, (16, 24))
    x = images(3, 16, 24)
    expected = [
        torch.cat(parts) for parts in zip(*(model(x[k : k + 1]) for k in range(3)), strict=True)
    ]
    assert_same(program(x), tuple(expected))


@pytest.mark.parametrize("split", ["lateral+relu_1", "add+relu_1"])
def test_halves_take_batches_of_a_program_for_one_image(tmp_path, split):
    program = load_model(str(exported(Pyramid(), tmp_path / "net.pt2")))
    halves = split_model(program, split, (16, 24))
    x = images(3, 16, 24)
    features = halves.edge(x)
    assert [tuple(f.shape) for f in features] == [(3, *spec.shape) for spec in halves.tensors]
    assert_same(halves.cloud(features), program(x))


@pytest.mark.parametrize("dynamic", [False, True])
def test_nested_results_of_a_network_that_overwrites(tmp_path, dynamic):
    model = Written().eval().requires_grad_(requires_grad=False)
    options = {"dynamic_shapes": ({0: torch.export.Dim("batch")},)} if dynamic else {}
    path = exported(model, tmp_path / "net.pt2", batch=2, **options)
    program = load_model(str(path))
    x = images(2, 16, 24)
    expected = model(x.clone())
    assert_same(program(x), expected)
    halves = split_model(program, "conv", (16, 24))
    assert_same(halves.cloud(halves.edge(x)), expected)
    assert (halves.tensors[0].stride_y, halves.tensors[0].offset_y2) == (2, 0)
    four = torch.cat([x, x])
    assert halves.cloud(halves.edge(four))["fine"].shape[0] == 4
    if not dynamic:
        with pytest.raises(ModelError, match="3 images, and the program was exported for batches"):
            program(images(3, 16, 24))


def test_sizes(tmp_path):
    program = load_model(str(exported(Pyramid(), tmp_path / "net.pt2")))
    with pytest.raises(ModelError, match="exported for images of 24x16, not 16x16"):
        split_model(program, "add+relu_1", (16, 16))
    sides = {2: 4 * torch.export.Dim("rows", min=3), 3: 4 * torch.export.Dim("columns", min=3)}
    free = load_model(str(exported(Pyramid(), tmp_path / "any.pt2", dynamic_shapes=(sides,))))
    assert (free.batch, free.input_size) == (1, None)
    (fine, coarse) = split_model(free, "lateral+relu_1", (32, 48)).tensors
    assert (fine.height, coarse.width) == (16, 12)
    with pytest.raises(ModelError, match="no input size of its own"):
        describe_splits(str(tmp_path / "any.pt2"))
    assert describe_splits(str(tmp_path / "any.pt2"), (32, 32))


class Scaled(nn.Module):
    """Overwrites, and brings its result to the size of the image."""

    def __init__(self):
        super().__init__()
        self.conv = nn.Conv2d(3, 4, 3, 2, 1)

    def forward(self, x):
        size = (x.shape[2], x.shape[3])
        return functional.interpolate(functional.hardswish(self.conv(x), inplace=True), size=size)


def test_sizes_that_are_multiples_of_something(tmp_path):
    model = Scaled().eval().requires_grad_(requires_grad=False)
    sides = {2: 4 * torch.export.Dim("rows", min=3), 3: 4 * torch.export.Dim("columns", min=3)}
    path = str(exported(model, tmp_path / "net.pt2", dynamic_shapes=(sides,)))
    ((split, (spec,)), *_) = describe_splits(path, (32, 48))
    assert spec.shape == (4, 16, 24)
    halves = split_model(load_model(path), split, (32, 48))
    x = images(1, 32, 48)
    assert_same(halves.cloud(halves.edge(x)), model(x))


def test_splits_and_costs(tmp_path):
    name = str(exported(Pyramid(), tmp_path / "net.pt2"))
    names = [split for split, _ in describe_splits(name)]
    assert names[:2] == ["relu", "relu+relu_1"]
    program = load_model(name)
    for split in names:
        halves = split_model(program, split, (16, 24))
        assert_same(halves.cloud(halves.edge(images(1, 16, 24))), program(images(1, 16, 24)))
    costs = {split: cost for split, _, cost in describe_costs(name)}
    assert costs["relu"].edge_macs == 8 * 12 * 4 * 27
    assert costs["relu"].edge_macs + costs["relu"].cloud_macs == sum(
        (8 * 12 * (4 * 27 + 6 * 4 + 5 * 54), 4 * 6 * (6 * 36 + 5 * 54))
    )


def test_names_in_headers(tmp_path):
    path = exported(Pyramid(), tmp_path / "net.pt2")
    name = model_name(str(path))
    assert name.startswith("net.pt2@")
    assert len(name) == len("net.pt2@") + 16
    moved = tmp_path / "other name.pt2"
    moved.write_bytes(path.read_bytes())
    check_model(name, model_name(str(moved)))
    exported(Pyramid(), moved)
    with pytest.raises(ModelError, match=r"stream is of model net\.pt2@.*, not of other name\.pt2"):
        check_model(name, model_name(str(moved)))
    with pytest.raises(ModelError, match="not of resnet18"):
        check_model(name, "resnet18")
    check_model("resnet18", "resnet18")


def test_a_file_is_read_once(tmp_path, monkeypatch):
    path = exported(Pyramid(), tmp_path / "net.pt2")
    read: list[Path] = []
    whole = Path.read_bytes
    monkeypatch.setattr(Path, "read_bytes", lambda self: read.append(self) or whole(self))
    network = open_network(str(path))
    assert read == [path]
    assert network.name == model_name(str(path))
    with pytest.raises(ModelError, match="not of net"):
        open_network(str(path), named="net.pt2@0123456789abcdef")
    assert read == [path] * 3
    open_network(str(path), named=network.name)
    assert read == [path] * 4


class Chance(nn.Module):
    def forward(self, x):
        return x + torch.rand(())


class Double(nn.Module):
    def forward(self, x, y):
        return x + y


def test_programs_that_are_no_use(tmp_path):
    path = tmp_path / "net.pt2"
    exported(Chance(), path)
    with pytest.raises(ModelError, match="draws random numbers"):
        load_program(path)
    torch.export.save(torch.export.export(nn.Dropout().train(), (torch.zeros(1, 3, 4, 4),)), path)
    with pytest.raises(ModelError, match="training mode"):
        load_program(path)
    torch.export.save(torch.export.export(Double(), (torch.zeros(1, 3, 4, 4),) * 2), path)
    with pytest.raises(ModelError, match="takes 2 inputs"):
        load_program(path)
    torch.export.save(torch.export.export(nn.ReLU(), (torch.zeros(1, 1, 4, 4),)), path)
    with pytest.raises(ModelError, match=r"expected float32 images \(N, 3, H, W\)"):
        load_program(path)


# --- archives ---


class Payload:
    """Writes a file when it is unpickled."""

    def __init__(self, target):
        self.target = target

    def __reduce__(self):
        return os.mkdir, (str(self.target),)


def rewritten(path: Path, changes: dict[str, bytes], without: str = "") -> Path:
    """Write an archive with other contents of some of its members, or further ones."""
    reader = torch._C.PyTorchFileReader(io.BytesIO(path.read_bytes()))
    members = {
        name: reader.get_record(name)
        for name in reader.get_all_records()
        if not name.startswith(".data/")
    }
    target = path.with_name("rewritten.pt2")
    writer = torch._C.PyTorchFileWriter(str(target))
    for name, content in {**members, **changes}.items():
        if name not in {"byteorder", without} or name in changes:
            writer.write_record(name, content, len(content))
    writer.write_end_of_file()
    return target


def program_of(path: Path) -> str:
    return torch._C.PyTorchFileReader(str(path)).get_record("models/model.json").decode()


@pytest.fixture
def archive(tmp_path):
    return exported(Pyramid(), tmp_path / "net.pt2")


def test_an_archive_that_was_only_rewritten_loads(archive):
    assert load_program(rewritten(archive, {})).batch == 1


def pickled(tmp_path) -> bytes:
    content = io.BytesIO()
    torch.save({"x": Payload(tmp_path / "ran")}, content)
    return content.getvalue()


@pytest.mark.parametrize(
    "member",
    [
        "data/sample_inputs/model.PT",  # torch looks members up in any case
        "data/weights/model.pt",
        "data/constants/custom_obj_0",
        "data/constants/CUSTOM_OBJ_0",
        "data/constants/opaque_obj_0",
    ],
)
def test_pickles_are_not_unpickled(archive, tmp_path, member):
    broken = rewritten(archive, {member: pickled(tmp_path)}, without=member.lower())
    with pytest.raises(ModelError, match=r"not known to be harmless; codec.load_model\("):
        load_program(broken)
    assert not (tmp_path / "ran").exists()


def test_sample_inputs_are_not_read(archive, tmp_path):
    load_program(rewritten(archive, {"data/sample_inputs/model.pt": pickled(tmp_path)}))
    assert not (tmp_path / "ran").exists()


@pytest.mark.parametrize("name", ["WEIGHT_0", "/weight_0", "../weights/weight_0"])
def test_weights_go_by_names_as_torch_gives_them(archive, tmp_path, name):
    config_name = "data/weights/model_weights_config.json"
    config = json.loads(torch._C.PyTorchFileReader(str(archive)).get_record(config_name))
    next(iter(config["config"].values())).update(use_pickle=True, path_name=name)
    changes = {
        config_name: json.dumps(config).encode(),
        "data/weights/weight_0": pickled(tmp_path),
    }
    with pytest.raises(ModelError, match="not known to be harmless"):
        load_program(rewritten(archive, changes))
    assert not (tmp_path / "ran").exists()


def test_pickled_weights_are_not_unpickled(archive, tmp_path):
    name = "data/weights/model_weights_config.json"
    config = json.loads(torch._C.PyTorchFileReader(str(archive)).get_record(name))
    next(iter(config["config"].values()))["use_pickle"] = True
    changes = {
        name: json.dumps(config).encode(),
        "data/weights/weight_0": pickle.dumps(Payload(tmp_path / "ran")),
    }
    with pytest.raises(ModelError, match=r"weight_0' holds more than tensors"):
        load_program(rewritten(archive, changes))
    assert not (tmp_path / "ran").exists()


@pytest.mark.parametrize("member", ["CUSTOM_OBJ_0", "Opaque_obj_0", "custom_obj_0"])
def test_no_pickle_by_another_case_of_its_name(archive, tmp_path, member):
    """torch's reader takes names of any case for the same."""
    name = f"{member[:6].lower()}_obj_0"
    config = {"config": {"a": {"path_name": name, "is_param": False, "use_pickle": True}}}
    changes = {
        f"data/constants/{member}": pickle.dumps(Payload(tmp_path / "ran")),
        "data/constants/model_constants_config.json": json.dumps(config).encode(),
    }
    with pytest.raises(ModelError, match="not known to be harmless"):
        load_program(rewritten(archive, changes))
    assert not (tmp_path / "ran").exists()


def test_pickled_weights_by_another_case_of_their_name(archive, tmp_path):
    name = "data/weights/model_weights_config.json"
    config = json.loads(torch._C.PyTorchFileReader(str(archive)).get_record(name))
    next(iter(config["config"].values())).update(use_pickle=True, path_name="WEIGHT_0")
    changes = {
        name: json.dumps(config).encode(),
        "data/weights/weight_0": pickle.dumps(Payload(tmp_path / "ran")),
    }
    with pytest.raises(ModelError, match="holds more than tensors"):
        load_program(rewritten(archive, changes))
    assert not (tmp_path / "ran").exists()


def with_size(archive: Path, size: str, name: str | None = None) -> Path:
    """Write the archive with a tensor of another size, or a further tensor of that name."""
    program = json.loads(program_of(archive))
    tensors = program["graph_module"]["graph"]["tensor_values"]
    tensor = json.loads(json.dumps(next(iter(tensors.values()))))
    tensor["sizes"][0] = {"as_expr": {"expr_str": size, "hint": None}}
    tensors[name or next(iter(tensors))] = tensor
    return rewritten(archive, {"models/model.json": json.dumps(program).encode()})


@pytest.mark.parametrize("name", ["metadata", "guards_code"])
def test_nothing_hides_behind_a_name_that_is_not_read(archive, tmp_path, name):
    ran = tmp_path / "ran"
    with pytest.raises(ModelError, match="it has the size"):
        load_program(with_size(archive, f"__import__('os').mkdir({str(ran)!r})", name))
    assert not ran.exists()


@pytest.mark.parametrize(
    "size",
    [
        *("1<<99999999999", "9**9**9", "Pow(9, Pow(9, 9))", "Pow(b=9, e=9)", "9**99", "99999999!"),
        *("(((((9**8)**8)**8)**8)**8)", "(" * 300 + "1" + ")" * 300, "1+" * 2000 + "1", "s0.real"),
        *("Max([1])", "Symbol('exit()')", "(lambda: 1)()", "Max(1)(2)", "s0 if s0 else 1"),
    ],
)
def test_sizes_that_are_not_arithmetic_or_take_for_ever(archive, size):
    with pytest.raises(ModelError, match="it has the size") as caught:
        load_program(with_size(archive, size))
    assert "\n" not in str(caught.value)


@pytest.mark.parametrize(
    "size", ["4", "2*s0 + Max(1, s1//4)", "s0**2", "Pow(Symbol('s30', integer=True), Integer(2))"]
)
def test_sizes_that_are_arithmetic(archive, size):
    harmless_archive(with_size(archive, size).read_bytes(), "net.pt2")


def zipped(archive: Path, changes: dict[str, bytes], compression: int) -> Path:
    """Write the archive as a zip file, whose changed members are compressed."""
    whole, target = zipfile.ZipFile(archive), archive.with_name("zipped.pt2")
    root = whole.namelist()[0].partition("/")[0]
    with whole, zipfile.ZipFile(target, "w") as file:
        for name in whole.namelist():
            if name.removeprefix(f"{root}/") not in changes:
                file.writestr(name, whole.read(name))
        for name, content in changes.items():
            file.writestr(f"{root}/{name}", content, compression)
    return target


def test_nothing_is_larger_than_its_file(archive):
    zeros = bytes(1 << 20)
    assert load_program(zipped(archive, {}, zipfile.ZIP_STORED)).batch == 1
    with pytest.raises(ModelError, match="compressed members"):
        load_program(zipped(archive, {"data/weights/weight_0": zeros}, zipfile.ZIP_DEFLATED))
    inner = io.BytesIO()
    with zipfile.ZipFile(inner, "w") as file:
        file.writestr("a/data/0", zeros, zipfile.ZIP_DEFLATED)
    with pytest.raises(ModelError, match=r"model\.pt' holds more than tensors"):
        load_program(rewritten(archive, {"data/weights/model.pt": inner.getvalue()}))


def test_two_members_of_one_name(archive):
    twice = zipped(archive, {"data/weights/WEIGHT_0": b"x"}, zipfile.ZIP_STORED)
    with pytest.raises(ModelError, match="it holds 'data/weights/WEIGHT_0'"):
        load_program(twice)


@pytest.mark.parametrize(
    "content", [b"[]", b"1", b'{"config": [1]}', b'{"config": {"a": 1}}', b"[" * 100_000]
)
@pytest.mark.parametrize("member", ["data/weights/model_weights_config.json", "models/model.json"])
def test_whatever_is_wrong_is_told_in_one_line(archive, member, content, capfd):
    with pytest.raises(ModelError, match=r"rewritten\.pt2: ") as caught:
        load_program(rewritten(archive, {member: content}))
    assert "\n" not in str(caught.value)
    assert "Traceback" not in capfd.readouterr().err


@pytest.mark.parametrize(
    ("old", "new", "message"),
    [
        ("torch.ops.aten.relu.default", "torch.hub.load", "it calls 'torch.hub.load'"),
        ("torch.ops.aten.relu.default", "torch.ops.aten.from_file.default", "it calls"),
        ("torch.ops.aten.relu.default", "torch.ops.mine.relu.default", "it calls"),
        ("builtins.tuple", "subprocess.Popen", "returns a subprocess.Popen"),
        ('"fine.weight"', '"fine.\\"]+exit()+[\\"weight"', "it says"),
        (
            '"range_constraints": {',
            '"range_constraints": {"exit()": {}',
            "size 'exit",
        ),
    ],
)
def test_programs_that_could_run_code(archive, old, new, message):
    text = program_of(archive)
    assert old in text
    changed = text.replace(old, new)
    with pytest.raises(ModelError, match=message):
        load_program(rewritten(archive, {"models/model.json": changed.encode()}))


class Named(nn.Module):
    """Has a value of a name that the file chose."""

    def __init__(self):
        super().__init__()
        self.conv = nn.Conv2d(3, 4, 3, 2, 1)


class Metadata(Named):
    def forward(self, metadata):
        return self.conv(metadata).relu()


class GuardsCode(Named):
    def forward(self, guards_code):
        return self.conv(guards_code).relu()


def attacked(path: Path, attack) -> Path:
    program = json.loads(program_of(path))
    attack(program)
    return rewritten(path, {"models/model.json": json.dumps(program).encode()})


def a_size(program) -> dict:
    """Return the tensor of the program's image."""
    return program["graph_module"]["graph"]["tensor_values"][image_of(program)]


def image_of(program) -> str:
    return program["graph_module"]["graph"]["inputs"][-1]["as_tensor"]["name"]


@pytest.mark.parametrize("network", [Metadata, GuardsCode])
@pytest.mark.parametrize("place", ["sizes", "strides", "value", "hint"])
def test_sizes_of_values_of_any_name_are_looked_at(tmp_path, monkeypatch, network, place):
    monkeypatch.chdir(tmp_path)
    expression = {"as_expr": {"expr_str": "__import__('os').mkdir('ran') or 1", "hint": None}}

    def attack(program):
        graph = program["graph_module"]["graph"]
        if place == "value":
            name = image_of(program)
            graph["sym_int_values"] = {name: expression}
            del graph["tensor_values"][name]
        elif place == "hint":
            a_size(program)["sizes"][2] = {
                "as_expr": {"expr_str": "s0", "hint": {"as_int": expression["as_expr"]["expr_str"]}}
            }
        else:
            a_size(program)[place][2] = expression

    path = attacked(exported(network(), tmp_path / "net.pt2"), attack)
    with pytest.raises(ModelError, match="not known to be harmless"):
        load_program(path)
    assert not Path("ran").exists()


def test_dicts_of_arguments_are_not_written_into_python(archive, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    leaf = {"type": None, "context": None, "children_spec": []}

    def attack(program):
        signature = program["graph_module"]["module_call_graph"][0]["signature"]
        key = "a':__import__('os').mkdir('ran'),'b"
        positional = {"type": "builtins.tuple", "context": "null", "children_spec": []}
        named = {
            "type": "builtins.dict", "context": json.dumps([key]), "children_spec": [leaf]
        }  # fmt: skip
        spec = {"type": "builtins.tuple", "context": "null", "children_spec": [positional, named]}
        signature["in_spec"] = json.dumps([1, spec])

    with pytest.raises(ModelError, match="not known to be harmless"):
        load_program(attacked(archive, attack)).graph_module(images(1, 16, 24))
    assert not Path("ran").exists()


@pytest.mark.parametrize("kind", ["builtins.tuple", "builtins.list"])
def test_results_import_nothing(archive, tmp_path, monkeypatch, kind):
    (tmp_path / "a_module_beside.py").write_text("import os; os.mkdir('ran')")
    monkeypatch.chdir(tmp_path)
    monkeypatch.syspath_prepend(tmp_path)

    def attack(program):
        context = {"__enum__": True, "fqn": "a_module_beside:A", "name": "b"}
        spec = {"type": kind, "context": json.dumps(context), "children_spec": []}
        signature = program["graph_module"]["module_call_graph"][0]["signature"]
        signature["out_spec"] = json.dumps([1, spec])

    with pytest.raises(ModelError, match="not known to be harmless"):
        load_program(attacked(archive, attack))
    assert not Path("ran").exists()


def test_guards_and_notes_are_left_out(archive, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    code = "__import__('os').mkdir('ran')"

    def attack(program):
        program["guards_code"] = [code]
        program["graph_module"]["metadata"] = {"custom": code}
        for node in program["graph_module"]["graph"]["nodes"]:
            node["metadata"].update(stack_trace=f"a\n{code}", custom="[", from_node="[")

    load_program(attacked(archive, attack)).graph_module(images(1, 16, 24))
    assert not Path("ran").exists()


@pytest.mark.parametrize(
    ("size", "harmless"),
    [
        ("Mul(Integer(4), Symbol('s30', positive=True, integer=True))", True),
        ("2*s0 + Max(1, s1//4) - s0**2", True),
        ("Add(Pow(Symbol('s0', integer=True), Integer(2)), Integer(-1))", True),
        ("Eq(Mod(Symbol('s1', integer=True), Integer(2)), Integer(0))", True),
        ("Max(9**9**9**9, 2)", False),
        ("Pow(Pow(Integer(9), Integer(9)), Integer(9))", False),
        ("(((((s0**4)**4)**4)**4)**4)", False),
        ("s0.__class__", False),
        ("s0[0]", False),
        ("(lambda: 1)()", False),
        ("Symbol('exit()')", False),
        ("Symbol('s0', cls=exit)", False),
        ("Symbol('s0', **s1)", False),
        ("Add(*s0)", False),
        ("[s0 for s1 in s2]", False),
        ("exit()", False),
        ("'s0'", False),
        ("s0 if s1 else s2", False),
        ("s99999999", False),
        ("+".join(["s0"] * 1000), False),
        ("s0\n", False),
        ("(" * 900 + "s0" + ")" * 900, False),
    ],
)
def test_sizes_are_arithmetic(size, harmless):
    if harmless:
        _check_size(size, None)
        return
    with pytest.raises(_NotHarmless, match="it has the size"):
        _check_size(size, None)


def test_operations_are_those_of_networks():
    for name in ("torch.ops.aten.relu.default", "torch.ops.aten.sym_size.int", "_operator.mul"):
        _check_operation(name, None)
    for name in (
        "torch.ops.aten.__class__.mro",
        "torch.ops.aten.relu.__reduce_ex__",
        "torch.ops.aten.relu._op",
        "torch.ops.aten.relu.overloads",
        "torch.ops.aten.save.default",
        "torch.ops.aten.format.default",
        "torch.ops.aten.set_.source_Storage_storage_offset",
        "torch.ops.aten._sparse_coo_tensor_unsafe.default",
        "torch.ops.aten.absent.default",
        "torch.ops.torchvision.read_file.default",
        "torch.sym_fresh_size",
        "_operator.pow",
        "_operator.attrgetter",
    ):
        with pytest.raises(_NotHarmless, match="it calls"):
            _check_operation(name, None)


def test_programs_need_a_torch_that_reads_and_one_that_writes_them(archive, tmp_path, monkeypatch):
    old = tmp_path / "old.pt2"
    with zipfile.ZipFile(old, "w") as members:
        members.writestr("archive/version", "8.8")
        members.writestr("archive/serialized_exported_program.json", "{}")
    with pytest.raises(ModelError, match=r"as torch up to 2\.7 writes it; export it anew with"):
        load_program(old)
    monkeypatch.setattr(torch, "__version__", type(torch.__version__)("2.7.1+cpu"))
    with pytest.raises(ModelError, match=r"read by torch 2\.8 or later, this is 2\.7\.1\+cpu; pip"):
        load_program(archive)


@pytest.mark.parametrize(
    ("member", "content"),
    [
        ("data/weights/model_weights_config.json", b"[1]"),
        ("data/weights/model_weights_config.json", b'{"config": [1]}'),
        ("data/weights/model_weights_config.json", b'{"config": {"a": 1}}'),
        ("data/weights/model_weights_config.json", b'{"config": {"a": {"path_name": null}}}'),
        ("data/weights/model_weights_config.json", b"[" * 200_000 + b"]" * 200_000),
        ("models/model.json", b"[" * 200_000 + b"]" * 200_000),
        ("models/model.json", b"[1]"),
        ("models/model.json", b'{"graph_module": ' + b"9" * 5000 + b"}"),
        ("models/model.json", b"\xff\xfe{\x00}\x00"),
        ("models/model.json", b"{}"),
    ],
)
def test_damaged_files_end_in_one_line(archive, member, content):
    with pytest.raises(ModelError) as caught:
        load_program(rewritten(archive, {member: content}))
    assert "\n" not in str(caught.value)


@pytest.mark.parametrize("spec", ["[" * 100_000, "5", "[1]", '[1, {"type": "builtins.dict"}]'])
def test_damaged_structures_end_in_one_line(archive, spec):
    def attack(program):
        program["graph_module"]["module_call_graph"][0]["signature"]["out_spec"] = spec

    with pytest.raises(ModelError, match=r"rewritten\.pt2: "):
        load_program(attacked(archive, attack))


def test_files_that_are_none(archive, tmp_path):
    path = tmp_path / "broken.pt2"
    path.write_bytes(b"no archive at all")
    with pytest.raises(ModelError, match=r"not an exported program.*torch\.export\.save") as caught:
        load_program(path)
    assert "\n" not in str(caught.value)
    with pytest.raises(ModelError, match="damaged"):
        load_program(rewritten(archive, {"models/model.json": b"{"}))
    with pytest.raises(ModelError, match=r"it holds 'data/aotinductor/model/run\.so'"):
        load_program(rewritten(archive, {"data/aotinductor/model/run.so": b"x"}))


# --- real networks ---


@pytest.mark.weights
@pytest.mark.parametrize(
    ("file", "split"),
    [
        ("nanodet", "cat_4"),
        ("nanodet", "add_11+add_18+add_27"),
        ("nanodet", "add_29+add_28+add_27"),
        ("nanodet", "add_29+add_32+add_35"),
        ("movenet_multipose", "add+add_2+add_5+hardtanh_34"),
        ("movenet_multipose", "hardtanh_20"),
        ("selfie_segmentation", "mul_1+add_6+add_13+mul_7"),
        ("selfie_segmentation", "add_78"),
    ],
)
def test_real_programs(data_dir, file, split):
    path = data_dir / "models" / f"{file}.pt2"
    if not path.is_file():
        pytest.skip(f"LMC_DATA has no models/{file}.pt2")
    program = load_model(str(path))
    assert isinstance(program, Program)
    halves = split_model(program, split, program.input_size)
    x = images(2, *program.input_size)
    assert_same(halves.cloud(halves.edge(x)), program(x))
