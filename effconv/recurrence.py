"""One batched GRU recurrence over all layers, with a hand-written backward pass.

Every layer l owns a GRU (Cho et al. 2014) and unrolls it for its own number of steps T_l. Run one by one, L GRUs of
hidden size 64 spend their time on launching tiny operations. Here step t of all layers is one batched product, and
everything that does not depend on the previous state happens outside the loop. The plain form stands in the tests.
"""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import torch
from torch import Tensor


def _stretches(active: list[int]) -> list[tuple[int, int, int]]:
    """Runs of steps with the same number of layers: (first step, step after the last, layers)."""
    starts = [t for t in range(len(active)) if t == 0 or active[t] != active[t - 1]]
    return [(t, end, active[t]) for t, end in zip(starts, [*starts[1:], len(active)], strict=True)]


def _views(start: int, end: int, a: int, *buffers: Tensor) -> Iterator[tuple[Tensor, ...]]:
    """buffer[t, :a] of each buffer (T, L, ...) for t = start..end - 1, sliced all at once."""
    return zip(*(buffer[start:end, :a].unbind() for buffer in buffers), strict=True)


def _longest_first(lengths: list[int], device: torch.device) -> tuple[Tensor | None, Tensor | None]:
    """The order of the layers by decreasing length, and its inverse; None where they are in that order already."""
    order = sorted(range(len(lengths)), key=lambda layer: -lengths[layer])
    if order == list(range(len(lengths))):
        return None, None
    index = torch.tensor(order, device=device)
    return index, index.argsort()


def _select(values: Tensor, dim: int, order: Tensor | None) -> Tensor:
    return values if order is None else values.index_select(dim, order)


class _Recurrence(torch.autograd.Function):
    """gates_x (T, L, 1, 3H), w_hh (L, 3H, H), b_hh (L, 3H) -> states (T, L, 1, H).

    Inside, the layers are sorted by length, so that those still running at step t are the first active[t].
    """

    @staticmethod
    def forward(ctx: Any, gates_x: Tensor, w_hh: Tensor, b_hh: Tensor, lengths: list[int]) -> Tensor:
        steps, layers, hidden = gates_x.shape[0], w_hh.shape[0], w_hh.shape[2]
        order, inverse = _longest_first(lengths, w_hh.device)
        active = [sum(length > t for length in lengths) for t in range(steps)]
        gates_x, w_hh, b_hh = _select(gates_x, 1, order).contiguous(), _select(w_hh, 0, order), _select(b_hh, 0, order)
        states = gates_x.new_zeros(steps + 1, layers, 1, hidden)  # states[0] = h_0 = 0
        gates_h = torch.zeros_like(gates_x)  # W_hh h + b_hh
        gates = torch.zeros_like(gates_x)  # r, z, n after their nonlinearities
        w, b = w_hh.transpose(1, 2), b_hh.unsqueeze(1)
        rz, n = torch.split(gates, [2 * hidden, hidden], 3)
        r, z = torch.split(rz, hidden, 3)
        z.fill_(1)  # so that nothing flows back past a layer's length, where no step writes
        (x_rz, x_n), (h_rz, h_n) = (torch.split(g, [2 * hidden, hidden], 3) for g in (gates_x, gates_h))
        for start, end, a in _stretches(active):
            w_a, b_a = w[:a], b[:a]
            for h, h_next, gh, xrzt, xnt, hrzt, hnt, rzt, rt, zt, nt in _views(
                start, end, a, states[:-1], states[1:], gates_h, x_rz, x_n, h_rz, h_n, rz, r, z, n
            ):
                torch.baddbmm(b_a, h, w_a, out=gh)
                torch.add(xrzt, hrzt, out=rzt).sigmoid_()
                torch.addcmul(xnt, rt, hnt, out=nt).tanh_()
                torch.lerp(nt, h, zt, out=h_next)  # h' = (1 - z) n + z h
        ctx.save_for_backward(states, gates, h_n, w_hh)
        ctx.order, ctx.inverse, ctx.active = order, inverse, active
        return _select(states[1:], 1, inverse).clone()

    @staticmethod
    @torch.autograd.function.once_differentiable
    def backward(ctx: Any, grad_states: Tensor) -> tuple[Tensor, Tensor, Tensor, None]:
        states, gates, h_n, w_hh = ctx.saved_tensors
        steps, layers, _, hidden = h_n.shape
        r, z, n = torch.split(gates, hidden, 3)
        d_n = (1 - z) * (1 - n * n)  # dh' / d(argument of tanh)
        d_gates = torch.cat(  # dh' / d(W_hh h + b_hh), for r, z and n
            (d_n * h_n * r * (1 - r), (states[:-1] - n) * z * (1 - z), d_n * r), dim=2
        )  # (T, L, 3, H)
        grad_h = _select(grad_states, 1, ctx.order).clone()  # dL/dh'; each step adds its share to the one before
        grad_gates_h = torch.zeros_like(d_gates)
        rows = grad_gates_h.view(steps, layers, 1, 3 * hidden)
        share = torch.empty_like(grad_h[0])
        for start, end, a in reversed(_stretches(ctx.active)):
            w_a, share_a = w_hh[:a], share[:a]
            before = grad_h[max(start - 1, 0) : end - 1, :a].unbind()  # of the steps before; none before the first
            steps_a = list(_views(start, end, a, grad_h, d_gates, grad_gates_h, rows, z))
            for t in range(end - start - 1, -1, -1):
                g, dt, gt, row, zt = steps_a[t]
                torch.mul(g, dt, out=gt)
                if start + t > 0:
                    torch.mul(g, zt, out=share_a).baddbmm_(row, w_a)
                    before[t - (start == 0)].add_(share_a)
        back, grad_b = ctx.inverse, rows[:, :, 0].sum(0)
        grad_w = torch.bmm(rows[:, :, 0].permute(1, 2, 0), states[:-1, :, 0].transpose(0, 1))
        grad_x = torch.cat((rows[..., : 2 * hidden], grad_h * d_n), dim=3)
        return _select(grad_x, 1, back), _select(grad_w, 0, back), _select(grad_b, 0, back), None


def recurrence(gates_x: Tensor, w_hh: Tensor, b_hh: Tensor, lengths: list[int]) -> Tensor:
    """All layers' GRUs from h_0 = 0, given what the inputs contribute to the gates.

    gates_x: (T, L, 3H), W_ih x_t + b_ih by step and layer, gates ordered r, z, n as in `torch.nn.GRUCell`.
    w_hh: (L, 3H, H), b_hh: (L, 3H). lengths: T_l >= 1 by layer, T = max.
    Returns the states h_1..h_T: (T, L, H); past a layer's length they are zero.
    """
    states: Tensor = _Recurrence.apply(gates_x.unsqueeze(2), w_hh, b_hh, lengths)
    return states.squeeze(2)
