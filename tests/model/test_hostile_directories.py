"""Checkpoint directories from anywhere: each loads as what it says or is refused in one sentence, in little memory."""

import json
import os
import random
import struct

import pytest
import torch
from safetensors.torch import load_file, save_file

from kronos_lightning import Kronos, KronosTokenizer
from kronos_lightning.model import CheckpointError
from kronos_lightning.model.pretrained import read_record
from tests.helpers.networks import TINY_PREDICTOR, TINY_TOKENIZER

VALUES = [None, True, -1, 0, 10**7, 10**30, 1.5, float("nan"), float("inf"), "2", "\x1b[31m", [2], {"a": 1}, 64]


def refused_or_same(cls, folder, config, weights):
    """Load a directory; a network that loads has the configuration and the weights of the files."""
    try:
        loaded, refusal = cls.from_pretrained(folder), None
    except CheckpointError as error:
        loaded, refusal = None, str(error)
    if refusal is not None:
        assert str(folder) in refusal
        assert "\x1b" not in refusal
        assert len(refusal) < 2000
        return True
    written = json.loads((folder / "config.json").read_text())
    assert loaded.config == {key: type(loaded.config[key])(value) for key, value in written.items()}
    assert all(torch.equal(tensor, weights[name].float()) for name, tensor in loaded.named_parameters())
    return False


@pytest.mark.parametrize(("cls", "sizes"), [(Kronos, TINY_PREDICTOR), (KronosTokenizer, TINY_TOKENIZER)])
def test_no_value_of_a_configuration_is_trusted(tmp_path, cls, sizes):
    cls(**sizes).save_pretrained(tmp_path)
    weights = load_file(tmp_path / "model.safetensors")
    refused = 0
    for key in sizes:
        for value in VALUES:
            (tmp_path / "config.json").write_text(json.dumps(sizes | {key: value}))
            refused += refused_or_same(cls, tmp_path, sizes, weights)
    assert refused >= len(sizes) * len(VALUES) * 3 // 4


def test_no_header_of_weights_is_trusted(tmp_path):
    Kronos(**TINY_PREDICTOR).save_pretrained(tmp_path)
    path, generator = tmp_path / "model.safetensors", random.Random(0)
    whole, weights = path.read_bytes(), load_file(path)
    length = 8 + struct.unpack("<Q", whole[:8])[0]
    for bit in generator.sample(range(8 * length), 60):
        content = bytearray(whole)
        content[bit // 8] ^= 1 << bit % 8
        path.write_bytes(content)
        assert refused_or_same(Kronos, tmp_path, TINY_PREDICTOR, weights) or content[bit // 8] == ord(" ")
    path.write_bytes(whole[: len(whole) // 2])
    assert refused_or_same(Kronos, tmp_path, TINY_PREDICTOR, weights)


@pytest.mark.parametrize("kind", [torch.int8, torch.bool, torch.int64, torch.complex64])
def test_weights_that_are_no_floating_point_numbers_are_refused(tmp_path, tiny_predictor, kind):
    tiny_predictor.save_pretrained(tmp_path)
    weights = load_file(tmp_path / "model.safetensors")
    save_file(weights | {"norm.weight": weights["norm.weight"].to(kind)}, tmp_path / "model.safetensors")
    with pytest.raises(CheckpointError, match="weights do not fit"):
        Kronos.from_pretrained(tmp_path)


@pytest.mark.parametrize("value", [float("nan"), float("inf"), 1e300])
def test_weights_that_are_not_finite_are_refused(tmp_path, tiny_predictor, value):
    tiny_predictor.save_pretrained(tmp_path)
    weights = load_file(tmp_path / "model.safetensors")
    weights["norm.weight"] = weights["norm.weight"].double()
    weights["norm.weight"][3] = value
    save_file(weights, tmp_path / "model.safetensors")
    with pytest.raises(CheckpointError, match=r"norm\.weight holds values that are not finite"):
        Kronos.from_pretrained(tmp_path)


def test_half_precision_weights_load_as_before(tmp_path, tiny_predictor):
    tiny_predictor.save_pretrained(tmp_path)
    weights = load_file(tmp_path / "model.safetensors")
    half = {name: tensor.bfloat16() if tensor.is_floating_point() else tensor for name, tensor in weights.items()}
    save_file(half, tmp_path / "model.safetensors")
    loaded = Kronos.from_pretrained(tmp_path).state_dict()
    assert all(torch.equal(tensor, half[name].to(tensor.dtype)) for name, tensor in loaded.items())


def test_a_large_network_is_refused_before_it_is_built(tmp_path, tiny_predictor, monkeypatch):
    tiny_predictor.save_pretrained(tmp_path)
    (tmp_path / "config.json").write_text(json.dumps(TINY_PREDICTOR | {"d_model": 16_384, "n_layers": 100}))
    built, init = [], Kronos.__init__

    def watched(self, **sizes):
        init(self, **sizes)
        built.append(next(self.parameters()).device.type)

    monkeypatch.setattr(Kronos, "__init__", watched)
    with pytest.raises(CheckpointError, match=r"size mismatch|Missing"):
        Kronos.from_pretrained(tmp_path)
    assert built == ["meta"]


@pytest.mark.parametrize("name", ["config.json", "training.json"])
def test_a_pipe_in_place_of_a_file_does_not_hang(tmp_path, tiny_predictor, name):
    tiny_predictor.save_pretrained(tmp_path)
    (tmp_path / name).unlink(missing_ok=True)
    os.mkfifo(tmp_path / name)
    with pytest.raises(CheckpointError, match=r"missing|not a regular file"):
        Kronos.from_pretrained(tmp_path) if name == "config.json" else read_record(tmp_path)
