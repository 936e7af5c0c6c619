"""Parameter groups: who is in which, with which rate and decay, and what a step does with them."""

from __future__ import annotations

import pytest
import torch
from torch import nn

from reproduce.run.optimizers import make_optimizer, parameter_groups
from reproduce.specs import ParameterGroup
from tests.reproduce.run_samples import recipe

GROUPS = (
    ParameterGroup(names="head.weight", lr_factor=0.1),
    ParameterGroup(names="*.bias", lr_factor=2.0, weight_decay=0.0),
)


class Net(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.body, self.head = nn.Linear(2, 3), nn.Linear(3, 1)


def test_the_first_matching_group_has_a_parameter_and_the_last_holds_the_rest() -> None:
    net = Net()
    head, biases, rest = parameter_groups(net, recipe(groups=GROUPS, weight_decay=0.01))
    assert (head["params"], head["lr_factor"], head["weight_decay"]) == ([net.head.weight], 0.1, 0.01)
    assert [id(one) for one in biases["params"]] == [id(net.body.bias), id(net.head.bias)]
    assert (biases["lr_factor"], biases["weight_decay"]) == (2.0, 0.0)
    assert (rest["params"], rest["lr_factor"], rest["weight_decay"]) == ([net.body.weight], 1.0, 0.01)


def test_a_group_that_matches_nothing_is_an_error() -> None:
    with pytest.raises(ValueError, match="no parameter of Net is named like"):
        parameter_groups(Net(), recipe(groups=(ParameterGroup(names="*mask_params"),)))


def test_frozen_parameters_are_in_no_group() -> None:
    net = Net()
    net.body.requires_grad_(False)
    (group,) = parameter_groups(net, recipe())
    assert len(group["params"]) == 2


@pytest.mark.parametrize("name", ["adam", "adamw", "sgd"])
def test_decay_acts_where_its_group_says(name: str) -> None:
    net = Net()
    optimizer = make_optimizer(net, recipe(optimizer=name, groups=GROUPS, weight_decay=0.5, lr=0.1))
    before = {key: value.clone() for key, value in net.state_dict().items()}
    for parameter in net.parameters():
        parameter.grad = torch.zeros_like(parameter)
    optimizer.step()
    moved = {key for key, value in net.state_dict().items() if not torch.equal(value, before[key])}
    assert moved == {"body.weight", "head.weight"}


def test_epsilon_reaches_adam() -> None:
    assert make_optimizer(Net(), recipe(adam_eps=1e-7)).param_groups[0]["eps"] == 1e-7
