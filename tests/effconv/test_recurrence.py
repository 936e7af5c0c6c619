"""The batched recurrence equals one plain loop over `torch.nn.GRUCell` per layer, forward and backward."""

from __future__ import annotations

import pytest
import torch
from torch import Tensor, nn

from effconv.recurrence import recurrence

HIDDEN, INPUT = 5, 4


def _problem(lengths: list[int]) -> tuple[list[nn.GRUCell], Tensor]:
    torch.manual_seed(0)
    cells = [nn.GRUCell(INPUT, HIDDEN, dtype=torch.float64) for _ in lengths]
    return cells, torch.randn(max(lengths), len(lengths), INPUT, dtype=torch.float64)


def _plain(cells: list[nn.GRUCell], inputs: Tensor, lengths: list[int]) -> list[Tensor]:
    """The states h_1 .. h_T of each layer, (T, H)."""
    results = []
    for layer, (cell, length) in enumerate(zip(cells, lengths, strict=True)):
        h, states = torch.zeros(HIDDEN, dtype=torch.float64), []
        for t in range(length):
            h = cell(inputs[t, layer], h)
            states.append(h)
        results.append(torch.stack(states))
    return results


def _batched(cells: list[nn.GRUCell], inputs: Tensor, lengths: list[int]) -> list[Tensor]:
    w_ih, w_hh, b_ih, b_hh = (
        torch.stack([getattr(cell, name) for cell in cells])
        for name in ("weight_ih", "weight_hh", "bias_ih", "bias_hh")
    )
    gates_x = torch.einsum("tli,lgi->tlg", inputs, w_ih) + b_ih
    states = recurrence(gates_x, w_hh, b_hh, lengths)
    return [states[:length, layer] for layer, length in enumerate(lengths)]


@pytest.mark.parametrize("lengths", [[1], [7], [4, 4, 4], [9, 4, 1], [4, 9, 1, 16], [25, 49, 1, 16, 9, 4, 25, 1]])
def test_equals_a_plain_loop_per_layer(lengths: list[int]) -> None:
    cells, inputs = _problem(lengths)
    inputs.requires_grad_()
    wanted = [inputs] + [parameter for cell in cells for parameter in cell.parameters()]
    weights = [torch.randn(length, HIDDEN, dtype=torch.float64) for length in lengths]  # an arbitrary gradient

    def run(states: list[Tensor]) -> tuple[list[Tensor], tuple[Tensor, ...]]:
        loss = torch.stack([(w * h).sum() for w, h in zip(weights, states, strict=True)]).sum()
        return states, torch.autograd.grad(loss, wanted)

    plain, plain_gradients = run(_plain(cells, inputs, lengths))
    batched, batched_gradients = run(_batched(cells, inputs, lengths))
    for a, b in zip(plain + list(plain_gradients), batched + list(batched_gradients), strict=True):
        torch.testing.assert_close(b, a, atol=1e-10, rtol=1e-10)


def test_gradient_is_that_of_finite_differences() -> None:
    torch.manual_seed(1)
    lengths = [3, 5, 1, 3]
    shapes = ((5, 4, 3 * HIDDEN), (4, 3 * HIDDEN, HIDDEN), (4, 3 * HIDDEN))
    arguments = [torch.randn(shape, dtype=torch.float64, requires_grad=True) for shape in shapes]

    def states(gates_x: Tensor, w_hh: Tensor, b_hh: Tensor) -> Tensor:
        h = recurrence(gates_x, w_hh, b_hh, lengths)
        return torch.cat([h[:length, layer] for layer, length in enumerate(lengths)])

    assert torch.autograd.gradcheck(states, arguments)


def test_states_past_a_layers_length_are_zero() -> None:
    torch.manual_seed(2)
    states = recurrence(
        torch.randn(4, 2, 3 * HIDDEN), torch.randn(2, 3 * HIDDEN, HIDDEN), torch.randn(2, 3 * HIDDEN), [2, 4]
    )
    assert (states[2:, 0] == 0).all() and (states[:2, 0] != 0).all() and (states[:, 1] != 0).all()


def test_single_precision_agrees_to_single_precision() -> None:
    lengths = [49, 9]
    cells, inputs = _problem(lengths)
    double = _batched(cells, inputs, lengths)
    single = _batched([cell.float() for cell in cells], inputs.float(), lengths)
    for a, b in zip(double, single, strict=True):
        torch.testing.assert_close(b.double(), a, atol=1e-5, rtol=1e-5)


def test_nothing_flows_back_past_a_layers_length() -> None:
    torch.manual_seed(0)
    gates_x = torch.randn(4, 2, 9, dtype=torch.float64, requires_grad=True)
    w_hh, b_hh = torch.randn(2, 9, 3, dtype=torch.float64), torch.randn(2, 9, dtype=torch.float64)
    recurrence(gates_x, w_hh, b_hh, [2, 4]).sum().backward()  # type: ignore[no-untyped-call]
    assert gates_x.grad is not None
    assert not gates_x.grad[2:, 0].any() and gates_x.grad[:2, 0].any() and gates_x.grad[:, 1].any()
