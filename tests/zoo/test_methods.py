"""One tester for all methods: what holds for one must hold for each, and a new entry of METHODS is tested without a new line here."""

import copy
import inspect
import typing

import lightning as L
import pytest
import torch

from datamodules.batch import validate_batch
from datamodules.errors import UserError
from zoo import METHODS, check_method, create_method, load_checkpoint
from zoo.base import LandslideModule

TINY = {"encoder": "tu-test_efficientnet", "terrain": ["elevation", "slope", "aspect_sin"], "decoder_channels": 16}
HALO = 2
SEALED = [
    "setup",
    "on_fit_start",
    "on_train_batch_start",
    "optimizer_step",
    "training_step",
    "configure_optimizers",
    "on_validation_epoch_start",
    "validation_step",
    "on_validation_epoch_end",
    "on_test_epoch_start",
    "test_step",
    "on_test_epoch_end",
    "predict_step",
    "probabilities",
    "on_save_checkpoint",
    "hyperparameters",
]

every_method = pytest.mark.parametrize("method", METHODS)


def tiny(method: str, **network) -> LandslideModule:
    torch.manual_seed(0)
    return create_method(method, network={**TINY, **network})


def make_batch(size=2, height=64, width=64, *, label=None, seed=0):
    """Noise with a landslide in it; what the network should make of it is not asked."""
    generator = torch.Generator().manual_seed(seed)
    mask = torch.zeros(size, height, width, dtype=torch.uint8)
    mask[:, height // 4 : height // 2, width // 4 : width // 2] = 1
    mask[:, :3] = 255
    if label is not None:
        mask[:] = label
    batch = {
        "image": torch.rand(size, 3, height, width, generator=generator) * 255,
        "dem": 1000 + 20 * torch.randn(size, 1, height + 2 * HALO, width + 2 * HALO, generator=generator),
        "mask": mask,
        "pixel_size": torch.full((size, 2), 2.0),
        "tile": [f"scene:{index}:0" for index in range(size)],
    }
    validate_batch(batch)
    return batch


def run_network(module, batch):
    return module.network(batch["image"], batch["dem"], batch["pixel_size"])


@every_method
@pytest.mark.parametrize("size", [(64, 64), (96, 160), (50, 71), (1, 3)])
def test_logits_have_the_size_of_the_image(method, size):
    module = tiny(method).eval()
    batch = make_batch(1, *size)
    logits = run_network(module, batch)
    assert logits.shape == (1, 1, *size)
    assert torch.isfinite(logits).all()


@every_method
@pytest.mark.parametrize("inputs", ["image", "dem", "both"])
def test_the_network_sees_its_inputs_and_no_others(method, inputs):
    module = tiny(method, inputs=inputs).eval()
    batch = make_batch()
    before = run_network(module, batch)
    other = {**batch, "image": batch["image"].flip(-1)}
    assert torch.equal(before, run_network(module, other)) == (inputs == "dem")
    other = {**batch, "dem": batch["dem"].flip(-1)}
    assert torch.equal(before, run_network(module, other)) == (inputs == "image")
    without_dem = {**batch, "dem": torch.full_like(batch["dem"], float("nan"))}
    assert torch.isfinite(run_network(module, without_dem)).all()


@every_method
@pytest.mark.parametrize("fusion", ["none", "concat", "add", "concat_ca", "ca_each_then_add"])
@pytest.mark.parametrize("decoder", ["deeplabv3plus", "unet"])
def test_every_trainable_parameter_of_the_network_gets_a_finite_gradient(method, fusion, decoder):
    module = tiny(method, fusion=fusion, decoder=decoder).train()
    terms = module.objective(make_batch())
    assert torch.isfinite(terms["total"])
    terms["total"].backward()
    for name, parameter in module.network.named_parameters():
        assert parameter.grad is not None, name
        assert torch.isfinite(parameter.grad).all(), name


@every_method
@pytest.mark.parametrize(
    ("size", "label"), [(1, None), (2, 0), (2, 1), (2, 255)], ids=["batch of one", "background", "landslide", "all ignored"]
)
def test_degenerate_batches_train(method, size, label):
    module = tiny(method).train()
    terms = module.objective(make_batch(size, label=label))
    assert all(torch.isfinite(term).all() for term in terms.values()), terms
    terms["total"].backward()
    gradients = [parameter.grad for parameter in module.parameters() if parameter.grad is not None]
    assert all(torch.isfinite(gradient).all() for gradient in gradients)


@every_method
def test_bf16_keeps_losses_in_float32(method):
    module = tiny(method).train()
    with torch.autocast("cpu", dtype=torch.bfloat16):
        terms = module.objective(make_batch())
    assert terms["total"].dtype == torch.float32
    assert torch.isfinite(terms["total"])


@every_method
def test_evaluation_is_sealed(method):
    for name in SEALED:
        assert getattr(METHODS[method], name) is getattr(LandslideModule, name), f"{method} overrides {name}"
        assert getattr(inspect.getattr_static(LandslideModule, name), "__final__", False), f"{name} is not final"
    assert typing.get_type_hints(METHODS[method].objective)["return"] == dict[str, torch.Tensor]


@every_method
def test_constructor_arguments_are_kept_and_build_the_same_module(method):
    module = tiny(method, inputs="image")
    stored = module.hyperparameters()
    assert stored["network"]["encoder"] == "tu-test_efficientnet"
    rebuilt = create_method(method, **copy.deepcopy(stored))
    assert rebuilt.hyperparameters() == stored
    assert {name: value.shape for name, value in rebuilt.state_dict().items()} == {
        name: value.shape for name, value in module.state_dict().items()
    }
    assert check_method(method, stored) == check_method(method, rebuilt.hyperparameters())


@every_method
def test_a_checkpoint_alone_suffices(method, tmp_path):
    module = tiny(method).eval()
    module.decision_threshold.fill_(0.25)
    module.network.preprocessing.image_mean.fill_(100.0)
    trainer = L.Trainer(max_steps=0, logger=False, enable_checkpointing=False, enable_progress_bar=False, accelerator="cpu")
    trainer.strategy.connect(module)
    trainer.save_checkpoint(tmp_path / "model.ckpt")
    loaded = load_checkpoint(tmp_path / "model.ckpt")
    batch = make_batch()
    assert torch.equal(run_network(module, batch), run_network(loaded, batch))
    assert loaded.threshold == 0.25


@pytest.mark.parametrize(
    ("name", "hyperparameters", "message"),
    [
        ("deeplap", {}, "did you mean deeplab"),
        ("no.such.Class", {}, "cannot be imported"),
        ("torch.nn.Linear", {}, "is no LandslideModule"),
        ("deeplab", {"network": {"encodr": "resnet18"}}, "encodr"),
        ("deeplab", {"network": {"inputs": "images"}}, "images"),
        ("deeplab", {"optim": {"lr": "fast"}}, "fast"),
    ],
)
def test_wrong_names_and_values_are_refused_in_one_line(name, hyperparameters, message):
    with pytest.raises(UserError, match=message) as caught:
        create_method(name, **hyperparameters)
    assert "\n" not in str(caught.value)
    assert caught.value.exit_code == 2
