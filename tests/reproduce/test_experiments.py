"""Rows and specs: the paper's rows in its order, the settings of each protocol, and the counts behind them."""

from __future__ import annotations

import math

import pytest

from reproduce import experiments, plan
from reproduce.complexity import complexity
from reproduce.errors import UsageError
from reproduce.experiments import EXPERIMENTS, Row, dataset_of, rows
from reproduce.naming import is_control
from reproduce.networks import BASELINES, Network, network
from reproduce.specs import ModelSpec, Protocol, RunSpec
from tests.reproduce.hall_samples import spec_of

PAPER, QUICK, TINY = (Protocol(base=base) for base in ("paper", "quick", "tiny"))  # type: ignore[arg-type]


def named(found: list[Row]) -> list[str]:
    return [row.name for row in found]


def test_table2_has_the_papers_rows_in_its_order_and_then_the_controls() -> None:
    assert named(rows("table2", PAPER)) == [
        "N-JetNet-ALLCNN",
        "N-JetNet-CIFARResNet32",
        "DCN-sigma^ji",
        "CKCNN-7",
        "CKCNN-16",
        "CKCNN_MAGNet-16",
        "FlexNet-3",
        "FlexNet-5",
        "FlexNet_Gabor-16",
        "FlexNet-16",
        "CIFARResNet-44",
        "CIFARResNet-44 w/ CKConv (k=3)",
        "CIFARResNet-44 w/ FlexConv",
        "EffConv-20 0.20M",
        "EffConv-20 0.50M",
        "EffConv-20 0.66M",
        "EffConv-32 0.66M",
        "EffConv-44 0.66M",
        "Wide-EffConv-28-1 0.66M",
        "control: ResNet-20",
        "control: uniform 0.66M",
        "control: random 0.66M",
        "control: init-only 0.66M",
        "control: shuffled 0.66M",
    ]


@pytest.mark.parametrize(
    ("experiment", "count"),
    [("table1", 5), ("table2", 19), ("table3", 5), ("table4", 4), ("figure2", 1), ("figure3", 12)],
)
def test_every_row_of_the_paper_has_a_network_that_can_be_counted(experiment: str, count: int) -> None:
    found = [row for row in rows(experiment, PAPER) if not is_control(row.name)]
    assert len(found) == count
    assert all(row.paper is not None and row.experiment == experiment for row in found)
    assert all(row.spec.data.name == dataset_of(experiment) for row in found)
    assert all(complexity(row.spec.model, row.spec.data.name).total > 100_000 for row in found)


def test_tables_have_controls_at_their_budget() -> None:
    for table in EXPERIMENTS[:4]:
        budget = "0.50M" if table == "table4" else "0.66M"
        fixed, *others = [row for row in rows(table, PAPER) if is_control(row.name)]
        assert [row.name for row in others] == [
            f"control: {kind} {budget}" for kind in ("uniform", "random", "init-only", "shuffled")
        ]
        assert all(row.paper is None for row in (fixed, *others))
        assert fixed.spec.size_learning is None
        assert fixed.spec.model == ModelSpec(family="cifar_resnet", args={"depth": 20})


def test_controls_differ_from_effconv_in_one_thing() -> None:
    effconv = spec_of("EffConv-20 0.66M")
    assert effconv.size_learning is not None
    uniform, random, init_only, shuffled = (
        spec_of(f"control: {kind} 0.66M") for kind in ("uniform", "random", "init-only", "shuffled")
    )
    assert uniform.size_learning is None and uniform.training == effconv.training
    assert abs(complexity(uniform.model, "cifar10").eq3 / 660_000 - 1) < 0.01
    for control, change in (
        (random, {"source": "random"}),
        (init_only, {"source": "init_only"}),
        (shuffled, {"labels": "shuffled"}),
    ):
        learning = effconv.size_learning.model_copy(update=change)
        assert control == effconv.model_copy(update={"size_learning": learning})


def test_names_mean_networks() -> None:
    effconv = network("EffConv-32 0.66M")
    assert (effconv.model.family, effconv.model.args, effconv.budget) == ("cifar_resnet", {"depth": 32}, 660_000)
    wide = network("Wide-EffConv-28-1 0.66M")
    assert wide.model.args == {"depth": 28, "widen_factor": 1}
    torchvision = network("CIFARResNet-18")
    assert torchvision == Network(model=ModelSpec(family="resnet18"))  # no CIFAR ResNet, whatever its name
    swapped = network("CIFARResNet-44 w/ FlexConv")
    assert swapped.model.family == "flex_resnet"
    uniform, shuffled = network("control: uniform 0.50M"), network("control: shuffled 0.50M")
    assert (uniform.model.family, uniform.budget, uniform.control) == ("cifar_resnet", None, "uniform")
    assert (shuffled.model.args, shuffled.budget, shuffled.control) == ({"depth": 20}, 500_000, "shuffled")


@pytest.mark.parametrize("name", ["EffNet-16", "EffConv-20", "control: other 0.66M", "WRN-28", ""])
def test_a_name_of_no_row_means_nothing(name: str) -> None:
    with pytest.raises(KeyError, match=f"no row is named {name!r}"):
        network(name)


def test_figures_share_specs_with_table_2() -> None:
    table = {row.name: row.spec for row in rows("table2", QUICK)}
    for figure in ("figure2", "figure3"):
        shared = [row for row in rows(figure, QUICK) if row.name in table]
        assert shared
        assert all(row.spec == table[row.name] for row in shared)


def test_figure3_panels_can_be_chosen() -> None:
    assert named(rows("figure3", PAPER))[:2] == ["EffConv-20 0.66M", "EffConv-26 0.66M"]
    assert named(rows("figure3", PAPER, depths=[20, 62], budgets=[])) == ["EffConv-20 0.66M", "EffConv-62 0.66M"]
    assert named(rows("figure3", PAPER, depths=[], budgets=[100_000])) == ["EffConv-20 0.10M"]
    assert rows("figure3", PAPER, depths=[62], budgets=[])[0].paper is None
    assert len(rows("figure3", PAPER, depths=[20], budgets=[660_000])) == 1


def test_datasets() -> None:
    datasets = ["mnist", "cifar10", "stl10", "imagenet32", "cifar10", "cifar10"]
    assert [dataset_of(name) for name in EXPERIMENTS] == datasets


@pytest.mark.parametrize(
    ("experiment", "epochs", "batch", "augmentation", "normalisation", "size_epochs"),
    [
        ("table1", 350, 64, "none", "mnist", 10),
        ("table2", 350, 64, "flip_crop", "imagenet", 10),
        ("table3", 100, 256, "none", "stl10", 10),
        ("table4", 350, 2048, "flip_crop", "imagenet", 5),
    ],
)
def test_the_paper_protocol_follows_flexconv(
    experiment: str, epochs: int, batch: int, augmentation: str, normalisation: str, size_epochs: int
) -> None:
    spec = effconv20(experiment, PAPER)
    recipe, learning = spec.training, spec.size_learning
    assert learning is not None
    assert (recipe.epochs, recipe.batch_size, recipe.augmentation, recipe.normalisation) == (
        epochs,
        batch,
        augmentation,
        normalisation,
    )
    assert (recipe.optimizer, recipe.lr, recipe.weight_decay, recipe.schedule) == ("adam", 0.01, 0.0, "flexconv_cosine")
    assert (recipe.warmup_epochs, recipe.drop_last, recipe.evaluate_every) == (5.0, False, 1)
    assert (learning.epochs, learning.batch_size, learning.augmentation) == (size_epochs, batch, augmentation)
    assert (learning.lr, learning.kernel_lr, learning.weight_decay, learning.lam) == (1e-4, 1e-3, 1e-3, 2.0)
    assert learning.max_size == 7
    assert spec.data.train_images is None
    assert spec.data.source == "canonical"


def effconv20(experiment: str, protocol: Protocol) -> RunSpec:
    return next(row.spec for row in rows(experiment, protocol) if row.name.startswith("EffConv-20"))


@pytest.mark.parametrize(
    ("experiment", "epochs", "size_epochs"),
    [("table1", 35, 1), ("table2", 35, 1), ("table3", 10, 1), ("table4", 35, 1)],
)
def test_quick_is_a_tenth(experiment: str, epochs: int, size_epochs: int) -> None:
    spec = effconv20(experiment, QUICK)
    assert spec.size_learning is not None
    assert (spec.training.epochs, spec.size_learning.epochs) == (epochs, size_epochs)
    assert spec.training.warmup_epochs == pytest.approx(0.5)
    assert spec.training.evaluate_every == 5
    assert spec.data.test_images is None


@pytest.mark.parametrize(("experiment", "images"), [("table1", 64), ("table2", 64), ("table3", 16), ("table4", 64)])
def test_tiny_changes_data_and_schedule_never_the_network(experiment: str, images: int) -> None:
    for small, full in zip(rows(experiment, TINY), rows(experiment, PAPER), strict=True):
        assert small.spec.model == full.spec.model
        assert (small.spec.training.epochs, small.spec.training.batch_size) == (2, 16)
        assert not small.spec.training.drop_last
        assert (small.spec.data.train_images, small.spec.data.test_images) == (images, images)
        assert small.spec.data.source == "digits"
        if full.spec.size_learning is not None:
            assert small.spec.size_learning is not None
            assert (small.spec.size_learning.epochs, small.spec.size_learning.batch_size) == (1, 16)
            assert small.spec.size_learning.budget == full.spec.size_learning.budget


@pytest.mark.parametrize(
    ("name", "experiment", "values"),
    [
        ("Efficient-CapsNet", "table1", {"optimizer": "adam", "lr": 5e-4, "batch_size": 16, "epochs": 150}),
        ("Efficient-CapsNet", "table1", {"schedule": "exponential", "gamma": 0.97, "lr_floor": 5e-5, "adam_eps": 1e-7}),
        ("Efficient-CapsNet", "table1", {"loss": "capsnet", "augmentation": "capsnet", "normalisation": "capsnet"}),
        ("Net in Net", "table1", {"optimizer": "sgd", "lr": 0.1, "momentum": 0.9, "weight_decay": 1e-4}),
        ("VGG-5", "table1", {"lr": 0.005, "batch_size": 100, "schedule": "redrawn", "epochs": 200}),
        ("FlexNet-16", "table1", {"lr": 0.01, "batch_size": 64, "epochs": 350, "augmentation": "none"}),
        ("FlexNet-3", "table2", {"lr": 0.01, "schedule": "flexconv_cosine", "warmup_epochs": 5.0}),
        ("FlexNet-3", "table2", {"epochs": 350, "batch_size": 64, "kernel_penalty": 0.0}),
        ("CKCNN-16", "table2", {"lr": 0.001, "groups": ()}),
        ("CKCNN_MAGNet-16", "table2", {"lr": 0.01, "groups": ()}),
        ("N-JetNet-ALLCNN", "table2", {"lr": 0.1, "weight_decay": 5e-4, "epochs": 90, "milestones": (30.0, 60.0)}),
        ("DCN-sigma^ji", "table2", {"lr": 0.1, "weight_decay": 0.0, "drop_last": True, "milestones": (80.0,)}),
        ("CIFARResNet-18", "table3", {"lr": 0.01, "batch_size": 256, "epochs": 350, "augmentation": "none"}),
        ("FlexNet-16", "table3", {"batch_size": 256, "epochs": 100}),
        ("FlexNet-5", "table4", {"batch_size": 2048, "kernel_penalty": 1e-5}),
        ("WRN-28-1", "table4", {"lr": 0.01, "weight_decay": 1e-3, "epochs": 80, "gamma": 0.2, "batch_size": 128}),
    ],
)
def test_baselines_keep_their_authors_settings(name: str, experiment: str, values: dict[str, object]) -> None:
    (spec,) = (row.spec for row in rows(experiment, PAPER) if row.name == name)
    assert {key: getattr(spec.training, key) for key in values} == values


def test_masks_learn_at_a_tenth_of_the_rate() -> None:
    masked = [name for name in BASELINES if "Flex" in name]
    assert len(masked) == 5
    for name in masked:
        (group,) = spec_of(name).training.groups
        assert (group.names, group.lr_factor, group.weight_decay) == ("*mask_params", 0.1, None)


def test_the_other_reading_leaves_baselines_alone() -> None:
    paper, other = (spec_of("FlexNet-16", protocol=name).training for name in ("paper", "paper-sgd"))
    assert paper == other


def test_shorter_protocols_keep_the_shape_of_every_schedule() -> None:
    (tiny,) = (row.spec for row in rows("table1", TINY) if row.name == "Efficient-CapsNet")
    assert tiny.training.gamma**2 == pytest.approx(0.97**150, rel=1e-6)
    assert spec_of("N-JetNet-ALLCNN", protocol="quick").training.milestones == (3.0, 6.0)
    assert not spec_of("DCN-sigma^ji", protocol="tiny").training.drop_last
    assert spec_of("DCN-sigma^ji", protocol="quick-10e-10000").training.drop_last


def test_derived_protocols_change_what_they_name() -> None:
    protocol = Protocol(base="quick", epochs=8, size_epochs=2, train_images=10_000)
    spec = effconv20("table2", protocol)
    assert spec.protocol == "quick-8e-2se-10000"
    assert spec.size_learning is not None
    assert (spec.training.epochs, spec.size_learning.epochs, spec.data.train_images) == (8, 2, 10_000)
    assert spec.training.warmup_epochs == pytest.approx(5 * 8 / 350)
    assert Protocol.parse(protocol.name) == protocol


def test_the_sgd_reading() -> None:
    sgd = Protocol(base="paper", recipe="sgd")
    resnet = spec_of("CIFARResNet-44", protocol="paper-sgd").training
    assert (resnet.optimizer, resnet.lr, resnet.momentum, resnet.nesterov) == ("sgd", 0.1, 0.9, False)
    assert (resnet.epochs, resnet.batch_size, resnet.weight_decay) == (200, 128, 1e-4)
    assert (resnet.milestones, resnet.gamma, resnet.augmentation) == ((100.0, 150.0), 0.1, "flip_crop")
    wide = spec_of("Wide-EffConv-28-1 0.66M", protocol="paper-sgd").training
    assert (wide.nesterov, wide.weight_decay, wide.gamma) == (True, 5e-4, 0.2)
    assert wide.milestones == (59.0, 119.0, 159.0)
    assert (wide.augmentation, wide.normalisation) == ("flip_crop_reflect", "cifar10")
    assert effconv20("table1", sgd).training.augmentation == "none"
    assert effconv20("table1", sgd).training.normalisation == "mnist"
    assert spec_of("CIFARResNet-44", protocol="quick-sgd").training.milestones == (10.0, 15.0)


def test_a_source_is_part_of_the_spec_but_not_of_the_cell() -> None:
    ours = spec_of(source="other-01234567")
    assert ours.spec_id != spec_of().spec_id
    assert ours.cell_id == spec_of().cell_id


def test_each_row_asks_for_its_own_run() -> None:
    for experiment in EXPERIMENTS:
        ids = [row.spec.spec_id for row in rows(experiment, PAPER)]
        assert len(ids) == len(set(ids))


@pytest.mark.parametrize(
    ("depth", "total", "eq3"),
    [(20, 269_722, 267_264), (32, 464_154, 460_800), (44, 658_586, 654_336), (56, 853_018, 847_872)],
)
def test_counts_of_cifar_resnets(depth: int, total: int, eq3: int) -> None:
    counts = complexity(ModelSpec(family="cifar_resnet", args={"depth": depth}), "cifar10")
    assert (counts.total, counts.eq3, counts.layers) == (total, eq3, depth)


def test_counts_of_other_heads_and_widths() -> None:
    def total(dataset: str, family: str, **args: int) -> int:
        return complexity(ModelSpec(family=family, args=dict(args)), dataset).total

    assert total("imagenet32", "cifar_resnet", depth=32) == 528_504
    assert total("cifar10", "wide_resnet", depth=28, widen_factor=1) == 369_498
    assert total("imagenet32", "wide_resnet", depth=28, widen_factor=1) == 433_848
    assert total("cifar10", "wide_resnet", depth=40, widen_factor=4) == 8_949_210


def test_multiply_adds_of_resnet20() -> None:
    counts = complexity(ModelSpec(family="cifar_resnet", args={"depth": 20}), "cifar10")
    stem, stage1, others = 432 * 1024, 6 * 2304 * 1024, (4608 + 5 * 9216) * 256 + (18_432 + 5 * 36_864) * 64
    assert counts.macs == stem + stage1 + others + 640
    assert counts.eq3_range == (29_696, 1_455_104)


@pytest.mark.parametrize("row", [row for table in EXPERIMENTS for row in rows(table, PAPER)], ids=lambda row: row.name)
def test_every_budget_of_the_paper_is_in_reach(row: Row) -> None:
    plan.check_budget(row.name, row.spec)


def test_a_budget_out_of_reach_names_the_range() -> None:
    (row,) = rows("figure3", PAPER, depths=[], budgets=[3_000_000])
    with pytest.raises(UsageError, match="from 29,696 to 1,455,104"):
        plan.check_budget(row.name, row.spec)


def test_estimates_grow_with_the_work() -> None:
    tiny, quick, full = (spec_of(protocol=name) for name in ("tiny", "quick", "paper"))
    for device in ("cpu", "cuda"):
        assert plan.seconds(tiny, device) < 60 < plan.seconds(quick, device) < plan.seconds(full, device)
    assert plan.seconds(full, "cuda") < plan.seconds(full, "cpu")
    runs = [plan.Run("a", quick, 0), plan.Run("a", quick, 1)]
    assert plan.total_seconds(runs, "cpu", 2) == pytest.approx(plan.total_seconds(runs, "cpu", 1) / 2)
    assert plan.total_seconds([], "cpu", 1) == 0.0


def test_each_experiments_docstring_is_there() -> None:
    for name in (*EXPERIMENTS[:5], "figure3a", "figure3b"):
        assert getattr(experiments, name).__doc__


def test_the_estimate_of_a_timing_counts_two_epochs_of_size_learning_where_they_are_whole() -> None:
    spec = spec_of("EffConv-20 0.66M", protocol="paper")
    assert spec.size_learning is not None
    of_one_epoch = spec.model_copy(update={"size_learning": spec.size_learning.model_copy(update={"epochs": 1})})
    training = plan.timing_seconds(spec.model_copy(update={"size_learning": None}), "cpu", math.inf)
    learning = plan.timing_seconds(of_one_epoch, "cpu", math.inf) - training
    assert learning > training
    assert plan.timing_seconds(spec, "cpu", math.inf) == pytest.approx(training + 2 * learning)
    # Some steps of the stage whose epoch is over the limit, a whole epoch of the other.
    assert training < plan.timing_seconds(spec, "cpu", (training + learning) / 2) < training + learning
    assert plan.timing_seconds(spec, "cpu", 0.0) < training
