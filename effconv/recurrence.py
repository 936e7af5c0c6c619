"""One batched GRU recurrence over all layers, with a hand-written backward pass.

Every layer l owns a GRU (Cho et al. 2014) and unrolls it for its own number of steps T_l. Run one by one, L GRUs of hidden
size 64 spend their time on launching tiny operations. Here step t of all layers is one batched product, and everything that
does not depend on the previous state happens outside the loop. The plain form stands in the tests.
"""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor


class _Recurrence(torch.autograd.Function):
    """gates_x (T, L, 3H), w_hh (L, 3H, H), b_hh (L, 3H) -> states (T, L, H); layers sorted by decreasing length."""

    @staticmethod
    def forward(ctx: Any, gates_x: Tensor, w_hh: Tensor, b_hh: Tensor, active: list[int]) -> Tensor:
        steps, layers, hidden = gates_x.shape[0], w_hh.shape[0], w_hh.shape[2]
        states = gates_x.new_zeros(steps + 1, layers, hidden)  # states[0] = h_0 = 0
        gates = torch.zeros_like(gates_x)  # r, z, n after their nonlinearities
        from_state = gates_x.new_zeros(steps, layers, hidden)  # W_hn h + b_hn
        w, b = w_hh.transpose(1, 2), b_hh.unsqueeze(1)
        for t, a in enumerate(active):
            h = states[t, :a]
            gates_h = torch.baddbmm(b[:a], h.unsqueeze(1), w[:a]).squeeze(1)
            x, y = gates_x[t, :a], gates[t, :a]
            rz, n = y[:, : 2 * hidden], y[:, 2 * hidden :]
            torch.add(x[:, : 2 * hidden], gates_h[:, : 2 * hidden], out=rz).sigmoid_()
            torch.addcmul(x[:, 2 * hidden :], rz[:, :hidden], gates_h[:, 2 * hidden :], out=n).tanh_()
            torch.lerp(n, h, rz[:, hidden:], out=states[t + 1, :a])  # h' = (1 - z) n + z h
            from_state[t, :a] = gates_h[:, 2 * hidden :]
        ctx.save_for_backward(states, gates, from_state, w_hh)
        ctx.active = active
        return states[1:]

    @staticmethod
    @torch.autograd.function.once_differentiable
    def backward(ctx: Any, grad_states: Tensor) -> tuple[Tensor, Tensor, Tensor, None]:
        states, gates, from_state, w_hh = ctx.saved_tensors
        steps, layers, hidden = from_state.shape
        r, z, n = gates.split(hidden, dim=2)
        d_n = (1 - z) * (1 - n * n)  # dh' / d(argument of tanh)
        d_gates = torch.stack(  # dh' / d(what W_hh h + b_hh gives), for r, z and n
            (d_n * from_state * r * (1 - r), (states[:-1] - n) * z * (1 - z), d_n * r), dim=2
        )  # (T, L, 3, H)
        grad_h = torch.zeros_like(from_state)  # dL/dh', all steps
        grad_gates_h = torch.zeros_like(d_gates)
        carried = grad_states.new_zeros(layers, 1, hidden)
        for t in range(steps - 1, -1, -1):
            a = ctx.active[t]
            g = torch.add(grad_states[t, :a], carried[:a, 0], out=grad_h[t, :a])
            gh = torch.mul(g.unsqueeze(1), d_gates[t, :a], out=grad_gates_h[t, :a])
            torch.baddbmm((g * z[t, :a]).unsqueeze(1), gh.view(a, 1, 3 * hidden), w_hh[:a], out=carried[:a])
        grad_b = grad_gates_h.view(steps, layers, 3 * hidden)
        grad_w = torch.bmm(grad_b.permute(1, 2, 0), states[:-1].transpose(0, 1))
        grad_x = torch.cat((grad_b[..., : 2 * hidden], grad_h * d_n), dim=2)
        return grad_x, grad_w, grad_b.sum(0), None


def recurrence(gates_x: Tensor, w_hh: Tensor, b_hh: Tensor, lengths: list[int]) -> Tensor:
    """All layers' GRUs from h_0 = 0, given what the inputs contribute to the gates.

    gates_x: (T, L, 3H), W_ih x_t + b_ih by step and layer, gates ordered r, z, n as in `torch.nn.GRUCell`.
    w_hh: (L, 3H, H), b_hh: (L, 3H). lengths: T_l >= 1 by layer, in decreasing order, T = max.
    Returns the states h_1..h_T: (T, L, H); past a layer's length they are zero.
    """
    active = [sum(length > t for length in lengths) for t in range(gates_x.shape[0])]
    states: Tensor = _Recurrence.apply(gates_x, w_hh, b_hh, active)
    return states
