"""The learned optimizer as a self-contained Python module that needs torch only.

The constants stand in `common.optimizer` and are written into the module as numbers; the arithmetic is that of
`drop_in` and `mlp_muon`, stated again for torch, and tests/test_torch_export.py holds the two together.
"""

import hashlib
import re
from base64 import b85encode

import numpy as np

from cluster.report.literals import escaped, in_lines
from common.config import OptimizerConfig
from common.errors import UserError
from common.optimizer import mlp, mlp_muon
from common.optimizer.drop_in import LARGEST_GRADIENT, LARGEST_INPUT

# Upper-case names with an at-sign on both sides are replaced by numbers and escaped literals, and by nothing else.
SOURCE = '''"""A learned optimizer for torch.

    optimizer = LearnedOptimizer(model.parameters())  # then like any optimizer of torch.optim

Exported by outertrain; ORIGIN says from where. theta has @SIZE@ numbers, sha256
@SHA256@.
"""

import base64
import functools
import struct
from collections import defaultdict

import torch

ORIGIN = @ORIGIN@
HIDDEN = @HIDDEN@
MOMENTUM_FEATURES = @MOMENTUM@
ITERATIONS = @ITERATIONS@  # that make the momentum of a matrix orthogonal; 0: it is no input
NEWTON_SCHULZ = @NEWTON@
TIME_SCALES = @TIMES@  # of the inputs by step
DECAYS = @DECAYS@
STEP_SCALE = @SCALE@  # of both outputs
LARGEST_GRADIENT = @GRADIENT@  # larger finite ones count as this
LARGEST_INPUT = @INPUT@  # inputs beyond this are scaled down before they are squared
CHUNK = 16384  # numbers that pass the hidden layer at once on a CPU, so that they stay in its cache
_THETA = @THETA@


class LearnedOptimizer(torch.optim.Optimizer):
    """The learned optimizer.

    Parameters are float32, float64, bfloat16 or float16; the state has @STATE@ numbers in float32 (float64 for float64
    parameters) for each parameter. Inputs are normalized over each tensor.

    Args:
        params: parameters, or groups of them with options of their own.
        lr: factor of the learned update; 1 is how it was trained. Schedulers of torch change it.
        weight_decay: decoupled: each step subtracts lr * weight_decay * parameter as well.
        maximize: ascend instead of descend.
    """

    def __init__(self, params, lr=1.0, weight_decay=0.0, *, maximize=False):
        if not lr >= 0.0:
            raise ValueError(f"Invalid learning rate: {lr}")
        if not weight_decay >= 0.0:
            raise ValueError(f"Invalid weight_decay value: {weight_decay}")
        super().__init__(params, dict(lr=lr, weight_decay=weight_decay, maximize=maximize))

    @torch.no_grad()
    def step(self, closure=None):
        """Updates the parameters that have gradients; returns the loss of the closure, if there is one."""
        loss = None
        if closure is not None:
            with torch.enable_grad():
                loss = closure()
        for group in self.param_groups:
            batches = defaultdict(list)
            for p in group["params"]:
                if p.grad is not None:
                    _check(p)
            for p in group["params"]:
                if p.grad is not None and p.numel():
                    state = self._state(p)
                    batches[p.shape, p.dtype, p.device, float(state["step"])].append(p)
            for (shape, *_, step), batch in batches.items():
                width = max(1, CHUNK // max(1, shape.numel()))
                for start in range(0, len(batch), width):
                    self._update(batch[start : start + width], step, group)
        return loss

    def load_state_dict(self, state_dict):
        """Loads the state of an optimizer; it stays float32 where parameters are narrower."""
        super().load_state_dict(state_dict)
        saved = [key for group in state_dict["param_groups"] for key in group["params"]]
        params = [p for group in self.param_groups for p in group["params"]]
        for key, p in zip(saved, params):
            for name in ("momentum", "rms") if key in state_dict["state"] else ():
                value = state_dict["state"][key][name]
                self.state[p][name] = value.to(device=p.device, dtype=_wide(p.dtype), copy=True)

    def _state(self, p):
        state = self.state[p]
        if not state:
            state["step"] = torch.zeros(())
            for name in ("momentum", "rms"):
                state[name] = torch.zeros((len(DECAYS), p.numel()), dtype=_wide(p.dtype), device=p.device)
        return state

    def _update(self, batch, step, group):
        """One step of tensors of one shape, dtype, device and number of steps before."""
        states = [self.state[p] for p in batch]
        dtype = _wide(batch[0].dtype)
        g = _rows([p.grad for p in batch], dtype)
        g = torch.where(g.isfinite(), g.clamp(-LARGEST_GRADIENT, LARGEST_GRADIENT), g)
        g = -g if group["maximize"] else g
        w = _rows(batch, dtype)
        m, r = (_joined([state[name] for state in states]) for name in ("momentum", "rms"))
        decay = torch.tensor(DECAYS, dtype=dtype, device=g.device)[:, None]
        m.mul_(decay).addcmul_(1 - decay, g)
        r.mul_(decay).addcmul_(1 - decay, g * g)
        change = _change(g, w, m, r, step, batch[0].shape)
        if group["weight_decay"]:
            change = change - group["weight_decay"] * w[:, 0]
        new = w[:, 0] + group["lr"] * change
        for k, (p, state) in enumerate(zip(batch, states)):
            p.copy_(new[k].view(p.shape))
            if len(batch) > 1:
                state["momentum"].copy_(m[k])
                state["rms"].copy_(r[k])
            state["step"] += 1


def _check(p):
    if p.grad.is_sparse:
        raise RuntimeError("LearnedOptimizer does not support sparse gradients")
    if not p.is_floating_point():
        raise RuntimeError(f"LearnedOptimizer updates real floating-point parameters, not {p.dtype}")


def _wide(dtype):
    return torch.float64 if dtype == torch.float64 else torch.float32


def _rows(tensors, dtype):
    """[tensors, 1, n], in logical order whatever the strides."""
    return torch.stack([x.reshape(1, -1) for x in tensors]).to(dtype)


def _joined(states):
    """[tensors, decays, n]; a view of the state where there is one tensor."""
    return states[0][None] if len(states) == 1 else torch.stack(states)


@functools.lru_cache
def _layers(dtype, device):
    """Kernel [H, inputs], bias [H], output kernel [2, H] and bias [2]."""
    theta = torch.tensor(struct.unpack("<@SIZE@f", base64.b85decode(_THETA)), dtype=torch.float32)
    theta = theta.to(device=device, dtype=dtype)
    inputs = (theta.numel() - 3 * HIDDEN - 2) // HIDDEN
    kernel, bias, out, out_bias = theta.split([inputs * HIDDEN, HIDDEN, 2 * HIDDEN, 2])
    return kernel.view(inputs, HIDDEN).T.contiguous(), bias, out.view(HIDDEN, 2).T.contiguous(), out_bias


def _orthogonal(x):
    """Matrices [tensors, rows, columns] near x with singular values near one, by Newton-Schulz on the Gram matrices."""
    x = x / (x.abs().amax((1, 2), keepdim=True) + 1e-10)
    tall = x.shape[1] > x.shape[2]
    gram = x.mT @ x if tall else x @ x.mT
    size = 1 / (gram.diagonal(dim1=1, dim2=2).sum(1)[:, None, None] + 1e-6)
    one = torch.eye(gram.shape[1], dtype=x.dtype, device=x.device)
    gram, total = gram * size, size.sqrt() * one
    a, b, c = NEWTON_SCHULZ
    for _ in range(ITERATIONS):
        step = a * one + b * gram + c * gram @ gram
        gram, total = gram @ step @ step, total @ step
    return x @ total if tall else total @ x


def _change(g, w, m, r, step, shape):
    """[tensors, n]: the learned updates from rows [tensors, 1, n] and averages [tensors, decays, n]."""
    kernel, bias, out, out_bias = _layers(g.dtype, g.device)
    inverse = (r + 1e-6).rsqrt()
    groups = [g, m * inverse, w, m, r, inverse] if MOMENTUM_FEATURES else [g, w, r, inverse]
    if ITERATIONS:
        matrices = m[:, 0].reshape(len(m), -1, shape[-1] if len(shape) > 1 else 1)
        groups.append((_orthogonal(matrices) if len(shape) > 1 else 0 * matrices).reshape(len(m), 1, -1))
    inputs = torch.cat(groups, 1)
    if float(torch.maximum(r.amax(), w.abs().amax())) > LARGEST_INPUT:
        peak = inputs.abs().amax(2, keepdim=True)
        inputs = inputs / torch.where(peak > LARGEST_INPUT, peak / LARGEST_INPUT, torch.ones_like(peak))
    features, n = inputs.shape[1:]
    scale = (1e-5 + torch.linalg.vector_norm(inputs, dim=2) ** 2 / n).rsqrt()
    if TIME_SCALES:
        scales = torch.tensor(TIME_SCALES, dtype=g.dtype, device=g.device)
        bias = bias + kernel[:, features:] @ torch.tanh(step / scales - 1)
    first = kernel[:, :features] * scale[:, None]
    width = CHUNK if g.device.type == "cpu" else n
    change = torch.empty_like(w[:, 0])
    for start in range(0, n, width):
        hidden = torch.matmul(first, inputs[:, :, start : start + width]).add_(bias[:, None]).relu_()
        outputs = torch.matmul(out, hidden).add_(out_bias[:, None])
        change[:, start : start + width] = -STEP_SCALE * outputs[:, 0] * torch.exp(STEP_SCALE * outputs[:, 1])
    return change
'''


def torch_source(config: OptimizerConfig, theta: np.ndarray, origin: str) -> str:
    """Returns the source of a module with the class `LearnedOptimizer`, from theta [P] float32.

    Raises:
      UserError: the optimizer is of another family than mlp and mlp_muon, or has several hidden layers.
    """
    if config.family not in ("mlp", "mlp_muon"):
        raise UserError(
            f"{config.family} cannot be exported for torch: only the families mlp and mlp_muon can; torch.optim has Adam, "
            "RMSprop and SGD of its own, and without --framework the module is written for optax"
        )
    if config.progress:
        raise UserError(
            "an optimizer that sees how much of a training is done cannot be exported for torch: without --framework the "
            "module is written for optax"
        )
    values = _mlp(config) if config.family == "mlp" else _mlp_muon(config)
    data = np.asarray(theta, "<f4").tobytes()
    values |= {
        "SIZE": str(len(theta)),
        "SHA256": hashlib.sha256(data).hexdigest(),
        "THETA": in_lines(b85encode(data).decode()),
        "ORIGIN": escaped(str(origin)),
    }
    return re.sub("@([A-Z0-9]+)@", lambda match: values[match[1]], SOURCE)  # one pass: values stay as they are


def _mlp(config: OptimizerConfig) -> dict[str, str]:
    """What SOURCE says of the family mlp."""
    return {
        "HIDDEN": str(int(config.hidden)),
        "MOMENTUM": str(bool(config.momentum_features)),
        "ITERATIONS": "0",
        "NEWTON": "()",
        "STATE": "ten",
        "TIMES": repr(mlp.TIME_SCALES if config.time_features else ()),
        "DECAYS": repr(mlp.DECAYS),
        "SCALE": repr(mlp.STEP_SCALE),
        "GRADIENT": _number(LARGEST_GRADIENT),
        "INPUT": _number(LARGEST_INPUT),
    }


def _mlp_muon(config: OptimizerConfig) -> dict[str, str]:
    """What SOURCE says of the family mlp_muon."""
    hidden = config.layers or mlp_muon.HIDDEN
    if len(hidden) > 1:
        raise UserError(
            f"an optimizer with the hidden layers {list(hidden)} cannot be exported for torch: only one hidden layer can; "
            "without --framework the module is written for optax"
        )
    return {
        "HIDDEN": str(int(hidden[0])),
        "MOMENTUM": "True",
        "ITERATIONS": str(mlp_muon.ITERATIONS),
        "NEWTON": repr(mlp_muon.NEWTON_SCHULZ),
        "STATE": "six",
        "TIMES": repr(mlp_muon.TIMES),
        "DECAYS": repr(mlp_muon.DECAYS),
        "SCALE": repr(mlp_muon.SCALE),
        "GRADIENT": _number(mlp_muon.LARGEST),
        "INPUT": 'float("inf")',  # gradients are small enough
    }


def _number(x: float) -> str:
    return f"{x:g}".replace("+", "")
