"""A run that trains step by step, when it is told to; as a script, the plain way. See `test_training`."""

import json
import runpy
import sys
import time
from typing import Any

import lightning as L
import torch
import torch.nn.functional as F

from kronos_lightning.model import layers
from kronos_lightning.model.tokenizer import KronosTokenizer, TokenizerOutput
from kronos_lightning.training import predictor_module, stage_module
from tests.helpers.paths import ROOT


class Stepper(L.Callback):
    """After each step prints the CPU and wall seconds since it was told to continue and the loss; waits for a line."""

    def on_train_batch_end(
        self, trainer: L.Trainer, pl_module: L.LightningModule, outputs: Any, *arguments: object
    ) -> None:
        now = time.process_time(), time.perf_counter()
        taken = [b - a for a, b in zip(self.began, now, strict=True)]
        print(json.dumps([*taken, float(outputs["loss"])]), flush=True)
        self._wait()

    def on_train_batch_start(self, trainer: L.Trainer, *arguments: object) -> None:
        if not hasattr(self, "began"):  # the first step begins here; all others with loading their batch
            self.began = time.process_time(), time.perf_counter()

    def _wait(self) -> None:
        sys.stdin.readline()
        self.began = time.process_time(), time.perf_counter()


def make_plain() -> None:
    """What a first version of the code did: nothing fused, each decoding by itself, memory given back."""
    layers.use_cpu_kernels = lambda x: False
    layers.rotate = rotate
    layers.dropout = lambda x, p: F.dropout(x, p)
    layers.attention_in_training = lambda q, k, v, p, causal: F.scaled_dot_product_attention(
        q, k, v, dropout_p=p, is_causal=causal
    )
    stage_module.keep_freed_memory = lambda: None
    predictor_module.token_losses = losses
    KronosTokenizer.forward = reconstruct
    build = stage_module.build_optimizer
    stage_module.build_optimizer = lambda network, stage, layer_decay, _: build(
        network, stage, layer_decay, fused=False
    )


def rotate(x: torch.Tensor, table: torch.Tensor) -> torch.Tensor:
    """The two halves each by itself, then put together."""
    cos, sin = table.squeeze(2)
    first, second = x.float().chunk(2, dim=-1)
    return torch.cat([first * cos - second * sin, second * cos + first * sin], dim=-1).type_as(x)


def reconstruct(self: KronosTokenizer, x: torch.Tensor) -> TokenizerOutput:
    """The coarse and the full decoding one after the other."""
    code, quantizer_loss = self.tokenizer["bsq"](self._embed(x))
    coarse = self._decode(self.post_quant_embed_pre(code[..., : self.s1_bits]))
    return TokenizerOutput(coarse, self._decode(self.post_quant_embed(code)), code, quantizer_loss)


def losses(s1_logits, s2_logits, s1_ids, s2_ids, label_smoothing):
    """Of logits with the classes in the second place."""
    pairs = (s1_logits, s1_ids), (s2_logits, s2_ids)
    return [F.cross_entropy(logits.transpose(1, 2), ids, reduction="none") for logits, ids in pairs]


if __name__ == "__main__":
    make_plain()
    sys.argv[0] = str(ROOT / "train.py")
    runpy.run_path(sys.argv[0], run_name="__main__")
