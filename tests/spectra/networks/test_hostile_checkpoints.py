"""Nothing in a checkpoint runs, and nothing that it claims makes the reader allocate more than the file holds."""

from __future__ import annotations

import collections
import io
import os
import pickle
import pickletools
import random
import struct
import subprocess
import sys
import zipfile
from contextlib import suppress
from pathlib import Path

import numpy as np
import pytest
import torch
from torch import nn

import spectra
from spectra.cli.commands import main
from spectra.networks.files.pickled import ALLOWED, DamagedPickle, ForeignName, read_pickle
from spectra.networks.files.torch_files import torch_content
from spectra.networks.scan import scan


def named(module: str, name: str, *args: object) -> bytes:
    """A pickle that calls a name."""
    return b"\x80\x02" + f"c{module}\n{name}\n".encode() + pickle.dumps(args, 2)[2:-1] + b"R."


FOREIGN = [
    ("os", "system", "true"),
    ("posix", "system", "true"),
    ("builtins", "eval", "1"),
    ("builtins", "exec", "1"),
    ("builtins", "getattr", "1", "2"),
    ("builtins", "__import__", "os"),
    ("subprocess", "Popen", "true"),
    ("torch", "load", "x"),
    ("torch.hub", "load", "x"),
    ("torch._utils", "_import_dotted_name", "os.system"),
    ("numpy", "load", "x"),
    ("numpy.core", "multiarray.scalar", "x"),
    ("functools", "partial", "x"),
    ("operator", "attrgetter", "x"),
    ("pathlib", "Path.unlink", "x"),
    ("argparse", "Namespace.__init__", "x"),
    ("datetime", "datetime.now.__self__", "x"),
    ("torch.storage", "os.system", "x"),
]


@pytest.mark.parametrize(("module", "name", "args"), [(one[0], one[1], one[2:]) for one in FOREIGN])
def test_a_name_that_is_not_on_the_list_is_refused_by_name(module: str, name: str, args: tuple, tmp_path: Path) -> None:
    for content in (
        named(module, name, *args),
        b"\x80\x04\x8c"
        + bytes([len(module)])
        + module.encode()
        + b"\x8c"
        + bytes([len(name)])
        + name.encode()
        + b"\x93.",
    ):
        with pytest.raises(ForeignName) as error:
            read_pickle(io.BytesIO(content))
        assert error.value.name == f"{module}.{name}"
        (tmp_path / "c.pt").write_bytes(content)
        with pytest.raises(spectra.WeightFileError, match="is refused: it is a pickle that would run code"):
            spectra.read_weights(tmp_path / "c.pt")


def test_nothing_that_is_allowed_is_called(monkeypatch: pytest.MonkeyPatch) -> None:
    """Even the names on the list are only written down."""
    called = []
    monkeypatch.setattr(collections, "Counter", lambda *args: called.append(args))
    monkeypatch.setattr(torch, "device", lambda *args: called.append(args))
    read_pickle(io.BytesIO(named("torch", "device", "cpu")))
    read_pickle(io.BytesIO(named("collections", "Counter", {"a": 1})))
    assert not called
    assert not {
        name for name in ALLOWED if name.startswith(("os.", "sys.", "subprocess.", "builtins.eval", "builtins.get"))
    }


def test_a_list_that_may_be_read_has_no_module_in_it(tmp_path: Path) -> None:
    for content in (nn.Linear(2, 2), {"model": nn.Linear(2, 2), "a": torch.ones(2, 2)}):
        torch.save(content, tmp_path / "c.pt")
        with pytest.raises(spectra.WeightFileError, match=r"asks for 'torch\.nn\.modules\.linear\.Linear'"):
            spectra.read_weights(tmp_path / "c.pt")


def test_a_small_pickle_cannot_name_without_end() -> None:
    """A list of twice the list before, 60 times: 2^60 names for who follows each."""
    inner = [torch.ones(2, 2)]
    for _ in range(60):
        inner = [inner, inner]
    file = io.BytesIO()
    torch.save({"a": inner}, file)
    path = Path(f"/proc/self/fd/{os.memfd_create('c')}")
    path.write_bytes(file.getvalue())
    with pytest.raises(spectra.WeightFileError, match="no weight"):  # nested deeper than is followed
        spectra.read_weights(path)
    cyclic: list = [np.ones((2, 3))]
    cyclic.append(cyclic)
    path.write_bytes(pickle.dumps({"a": cyclic}, 2))
    assert [weight.name for weight in spectra.read_weights(path).weights] == ["a.0"]


def test_deep_nests_and_long_keys_are_bounded(tmp_path: Path) -> None:
    array = pickle.dumps(np.ones((2, 3)), 2)[2:-1]
    deep = b"\x80\x02" + b"(" * 30_000 + b"t" * 30_000 + b"."
    (tmp_path / "deep.pt").write_bytes(deep)
    with pytest.raises(spectra.WeightFileError, match="no weight"):
        spectra.read_weights(tmp_path / "deep.pt")
    keyed = b"\x80\x02}" + b"(" * 30_000 + b"t" * 30_000 + array + b"s."
    (tmp_path / "keyed.pt").write_bytes(keyed)  # a hash of a tuple this deep would overflow the stack
    assert len(spectra.read_weights(tmp_path / "keyed.pt").weights) == 1
    (tmp_path / "long.pt").write_bytes(pickle.dumps({"k" * 100_000: np.ones((2, 3))}, 2))
    (weight,) = spectra.read_weights(tmp_path / "long.pt").weights
    assert len(weight.name) < 600


CLAIMS = """
import resource, sys
import numpy, torch
from spectra.networks.files.torch_files import torch_content
from spectra.networks.scan import scan
scan(sys.argv[1])
limit = 3 << 30
resource.setrlimit(resource.RLIMIT_DATA, (limit, limit))
for path in sys.argv[2:]:
    try:
        rows, _ = scan(path)
        print(path, [row.reason for row in rows])
    except ValueError as error:
        print(path, type(error).__name__, error)
print("peak", resource.getrusage(resource.RUSAGE_SELF).ru_maxrss // 1024)
"""


def claims(folder: Path) -> list[Path]:
    """Small files that claim to hold terabytes, each in another way."""
    paths = []

    def add(name: str, content: bytes) -> None:
        (folder / name).write_bytes(content)
        paths.append(folder / name)

    file = io.BytesIO()
    torch.save({"w": torch.ones(3, 5)}, file)
    whole = file.getvalue()
    pair = b"K\x03K\x05\x86"
    assert whole.count(pair) == 1
    for i, shape in enumerate(
        (b"J\xff\xff\xff\x7fK\x05\x86", b"J\xff\xff\xff\x7fJ\xff\xff\xff\x7f\x86", b"K\x03J\xff\xff\xff\xff\x86")
    ):
        add(f"shape{i}.pt", _with_pickle(whole, lambda data, shape=shape: data.replace(pair, shape)))
    stride = b"K\x05K\x01\x86"
    add(
        "stride.pt",
        _with_pickle(
            whole,
            lambda data: data.replace(pair, b"J\x00\x00\x10\x00J\x00\x00\x10\x00\x86").replace(
                stride, b"K\x00K\x00\x86"
            ),
        ),
    )
    for i, start in enumerate(
        (
            b"X\xff\xff\xff\xff",
            b"\x8d" + b"\xff" * 7 + b"\x7f",
            b"\x8e" + b"\xff" * 7 + b"\x7f",
            b"\x8b\xff\xff\xff\x7f",
        )
    ):
        add(f"length{i}.pt", b"\x80\x04" + start + b"abc")
    add("bytearray.pt", named("builtins", "bytearray", 1 << 45))
    add("old.pt", _legacy(1 << 50))
    header = b'{"w":{"dtype":"F32","shape":[1048576,1048576],"data_offsets":[0,4398046511104]}}'
    add("c.safetensors", struct.pack("<Q", len(header)) + header)
    add("h.safetensors", struct.pack("<Q", 1 << 60) + b"{")
    add("c.npy", b"\x93NUMPY\x01\x00" + _npy_header("(1048576, 1048576)"))
    add("h.npy", b"\x93NUMPY\x02\x00" + struct.pack("<I", (1 << 32) - 1) + b"{")
    return paths


def _npy_header(shape: str) -> bytes:
    text = f"{{'descr': '<f4', 'fortran_order': False, 'shape': {shape}, }}\n".encode()
    return struct.pack("<H", len(text)) + text


def _with_pickle(whole: bytes, change: object) -> bytes:
    """A file of torch's with another pickle in it."""
    assert callable(change)
    out = io.BytesIO()
    with zipfile.ZipFile(io.BytesIO(whole)) as old, zipfile.ZipFile(out, "w") as new:
        for record in old.infolist():
            data = old.read(record)
            new.writestr(record.filename, change(data) if record.filename.endswith("data.pkl") else data)
    return out.getvalue()


def _legacy(count: int) -> bytes:
    file = io.BytesIO()
    torch.save({"w": torch.ones(3, 5)}, file, _use_new_zipfile_serialization=False)
    return file.getvalue().replace(struct.pack("<q", 15), struct.pack("<q", count))


def test_claims_of_terabytes_are_not_believed(tmp_path: Path) -> None:
    for path in claims(tmp_path):
        try:
            rows, _ = scan(path)
        except spectra.WeightFileError:
            continue
        assert rows, path
        assert all(row.reason for row in rows), path


@pytest.mark.slow
def test_claims_of_terabytes_allocate_nothing(tmp_path: Path) -> None:
    torch.save({"w": torch.ones(3, 5)}, tmp_path / "good.pt")
    paths = [str(path) for path in claims(tmp_path)]
    command = [sys.executable, "-c", CLAIMS, str(tmp_path / "good.pt"), *paths]
    done = subprocess.run(command, capture_output=True, text=True, cwd=Path(spectra.__file__).parents[1])
    assert done.returncode == 0, done.stderr[-2000:]
    lines = done.stdout.splitlines()
    assert len(lines) == len(paths) + 1
    for line in lines[:-1]:
        assert "[None]" not in line, line
    assert int(lines[-1].split()[1]) < 1500, "MiB, torch's own included"


def test_an_array_that_unpacks_to_far_more_than_the_file_is_not_unpacked(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    np.savez_compressed(tmp_path / "c.npz", zeros=np.zeros((1000, 1000)), plain=np.eye(3))
    assert {row.name: row.reason for row in scan(tmp_path / "c.npz")[0]} == {"zeros": None, "plain": None}
    monkeypatch.setattr("spectra.networks.files.arrays.UNPACKED_FREELY", 1 << 20)
    reasons = {row.name: row.reason for row in scan(tmp_path / "c.npz")[0]}
    assert "would unpack to 8000000" in str(reasons["zeros"])
    assert reasons["plain"] is None


def test_what_is_cut_off_or_changed_is_an_error_in_words(tmp_path: Path) -> None:
    """Files with bytes changed or missing, in each format: a `WeightFileError`, or rows; never anything else."""
    content = {"a": torch.ones(3, 4), "b": {"c": np.ones((2, 3)), "d": [torch.zeros(2, 2)]}}
    files = {}
    for name, new in (("zip", True), ("old", False)):
        file = io.BytesIO()
        torch.save(content, file, _use_new_zipfile_serialization=new)
        files[name] = file.getvalue()
    files["bare"] = pickle.dumps(content, 4)
    packed = io.BytesIO()
    np.savez_compressed(packed, a=np.ones((3, 4)), b=np.zeros((2, 2)))
    files["npz"] = packed.getvalue()
    generator = random.Random(0)
    path = tmp_path / "c.pt"
    read = unnamed = 0
    for whole in files.values():
        for _ in range(50):
            data = bytearray(whole)
            for _ in range(generator.choice((1, 1, 3, 20))):
                data[generator.randrange(len(data))] = generator.randrange(256)
            if generator.random() < 0.3:
                del data[generator.randrange(len(data)) :]
            path.write_bytes(data)
            try:
                rows, _ = scan(path)
            except spectra.WeightFileError as error:
                unnamed += str(path) not in str(error)
                continue
            read += 1
            assert all(row.sigma or row.reason for row in rows)
    assert unnamed == 0
    assert read > 20, "some changes leave something to read"


def test_a_pipe_is_not_waited_for(tmp_path: Path) -> None:
    os.mkfifo(tmp_path / "pipe.pt")
    with pytest.raises(spectra.WeightFileError, match="neither a file nor a directory"):
        spectra.read_weights(tmp_path / "pipe.pt")


def test_names_cannot_command_a_terminal(tmp_path: Path, capsys: pytest.CaptureFixture) -> None:
    torch.save({"a\x1b]0;x\x07\nb": torch.ones(2, 2), "c\x1b[2J": torch.ones(2, 2).to_sparse()}, tmp_path / "c.pt")
    assert main(["scan", str(tmp_path / "c.pt")]) == 0
    out = capsys.readouterr().out
    assert "\x1b" not in out
    assert "a\\x1b]0;x\\x07\\nb" in out
    (tmp_path / "c.pt").write_bytes(b"\x80\x02cos\x1b[2J\nsystem\n.")
    assert main(["scan", str(tmp_path / "c.pt")]) == 2
    assert "\x1b" not in capsys.readouterr().err


def test_every_operation_of_a_pickle_is_known_or_refused() -> None:
    """No operation raises anything but `DamagedPickle` on an empty machine."""
    for operation in pickletools.opcodes:
        content = b"\x80\x04" + operation.code.encode("latin-1") + bytes(9) + b"\n\n."
        with suppress(DamagedPickle, ForeignName):
            read_pickle(io.BytesIO(content))


def test_a_further_name_is_only_written_down_and_only_where_it_is_asked_for(tmp_path: Path) -> None:
    content = {"itr": 7, "nl": nn.ReLU(inplace=True), "weight": torch.arange(6.0).view(2, 3)}
    for zipped in (True, False):
        path = tmp_path / f"{zipped}.pth"
        torch.save(content, path, _use_new_zipfile_serialization=zipped)
        with pytest.raises(spectra.WeightFileError, match=r"torch\.nn\.modules\.activation\.ReLU"):
            torch_content(path)
        found, tensor_of = torch_content(path, frozenset({"torch.nn.modules.activation.ReLU"}))
        assert found["itr"] == 7
        assert found["nl"].what == "torch.nn.modules.activation.ReLU"
        stored = tensor_of(found["weight"])
        assert stored is not None
        assert torch.equal(stored.read(), content["weight"])
