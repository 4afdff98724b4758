"""Weights that a checkpoint lacks are noticed when a declared model is loaded, whatever layer they belong to."""

from collections.abc import Callable, Iterator
from types import SimpleNamespace
from typing import Any

import pytest
import torch
from torch import nn
from vllm.model_executor.layers.linear import LinearMethodBase, MergedColumnParallelLinear, ReplicatedLinear
from vllm.model_executor.layers.vocab_parallel_embedding import ParallelLMHead, VocabParallelEmbedding
from vllm.model_executor.model_loader.weight_utils import default_weight_loader
from vllm.model_executor.models.utils import AutoWeightsLoader

from run_batch.model.checkpoint.missing_weights import install_weight_check
from run_batch.model.declaration import DeclarationError


@pytest.fixture(scope="module", autouse=True)
def one_process(tmp_path_factory: pytest.TempPathFactory) -> Iterator[None]:
    """What vLLM's layers want to know of before they can be built."""
    from vllm.config import VllmConfig, set_current_vllm_config
    from vllm.distributed import cleanup_dist_env_and_memory, init_distributed_environment, initialize_model_parallel

    meeting_point = f"file://{tmp_path_factory.mktemp('torch') / 'file'}"
    with set_current_vllm_config(VllmConfig()):
        init_distributed_environment(1, 0, meeting_point, 0, "gloo")
        initialize_model_parallel(1)
        yield
        cleanup_dist_env_and_memory()


class Network(nn.Module):
    """A layer of every kind, as a plugin's model has them."""

    def __init__(self) -> None:
        super().__init__()
        self.plain = nn.Linear(4, 4)
        self.projection = ReplicatedLinear(4, 4)
        self.fused = MergedColumnParallelLinear(4, [4, 4], bias=False)
        self.embed = VocabParallelEmbedding(10, 4)
        self.head = ParallelLMHead(10, 4)

    def load_weights(self, weights: Any) -> Any:
        return AutoWeightsLoader(self).load_weights(weights)


def declared(base: type[nn.Module] = Network, **members: Any) -> Any:
    """A class like `base` with other members, under the check."""
    model_cls = type("Model", (base,), members)
    install_weight_check(model_cls)
    return model_cls


def checkpoint(*without: str) -> list[tuple[str, torch.Tensor]]:
    shapes = {"plain.weight": (4, 4), "plain.bias": (4,), "projection.weight": (4, 4), "projection.bias": (4,)}
    shapes |= {"fused.weight": (8, 4), "embed.weight": (10, 4), "head.weight": (10, 4)}
    return [(name, torch.ones(shape)) for name, shape in shapes.items() if name not in without]


def refused(model: Any, weights: list[tuple[str, torch.Tensor]]) -> str:
    with pytest.raises(DeclarationError) as caught:
        model.load_weights(weights)
    assert "\n" not in str(caught.value)
    return str(caught.value)


def test_a_whole_checkpoint_is_loaded_and_the_names_are_passed_on() -> None:
    weights = checkpoint()
    assert declared()().load_weights(weights) == {name for name, _ in weights}


@pytest.mark.parametrize("name", [name for name, _ in checkpoint()])
def test_weights_that_are_missing_are_named(name: str) -> None:
    message = refused(declared()(), checkpoint(name))
    assert message.startswith("Model: the checkpoint lacks weights") and message.endswith(f": {name}")


def test_many_that_are_missing_are_counted() -> None:
    assert refused(declared()(), []).endswith(" and 2 more")


@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16, torch.float16])
def test_a_part_of_a_fused_layer_that_is_missing_is_noticed(dtype: torch.dtype) -> None:
    def load(self: Any, weights: Any) -> set[str]:
        loaded = AutoWeightsLoader(self).load_weights((n, w) for n, w in weights if n != "fused.weight")
        self.fused.weight_loader(self.fused.weight, torch.ones(4, 4), 1)
        return {*loaded, "fused.weight"}

    before = torch.get_default_dtype()
    torch.set_default_dtype(dtype)
    try:
        model = declared(load_weights=load)()
    finally:
        torch.set_default_dtype(before)
    assert model.fused.weight.dtype == dtype
    assert refused(model, [(n, w.to(dtype)) for n, w in checkpoint()]).endswith(": fused.weight")


def test_nan_in_a_checkpoint_is_noticed() -> None:
    weights = [(n, w * torch.nan if n == "head.weight" else w) for n, w in checkpoint()]
    assert "has NaN in them: head.weight" in refused(declared()(), weights)


def test_a_model_that_does_not_tell_what_it_loads_is_checked_all_the_same() -> None:
    def load(self: Any, weights: Any) -> None:
        AutoWeightsLoader(self).load_weights(weights)

    declared(load_weights=load)().load_weights(checkpoint())
    assert "projection.weight" in refused(declared(load_weights=load)(), checkpoint("projection.weight"))


def build(change: Callable[[Any], None], **members: Any) -> Any:
    def init(self: Any) -> None:
        Network.__init__(self)
        change(self)

    return declared(__init__=init, **members)()


def test_weights_that_the_model_makes_itself_need_not_be_in_the_checkpoint() -> None:
    def own(model: Any) -> None:
        nn.init.eye_(model.projection.weight)
        nn.init.zeros_(model.projection.bias)

    model = build(own)
    model.load_weights(checkpoint("projection.weight", "projection.bias"))
    assert torch.equal(model.projection.weight, torch.eye(4))


@pytest.mark.parametrize("in_checkpoint", ["embed", "head"])
def test_tied_weights_need_be_in_the_checkpoint_once(in_checkpoint: str) -> None:
    def tie(model: Any) -> None:
        model.head.weight = model.embed.weight

    def load(self: Any, weights: Any) -> set[str]:
        # vLLM's loader skips the second name of a tied parameter, so such a model loads it by itself.
        parameters = dict(self.named_parameters(remove_duplicate=False))
        for name, weight in weights:
            getattr(parameters[name], "weight_loader", default_weight_loader)(parameters[name], weight)
        return {name for name, _ in weights}

    other = "head" if in_checkpoint == "embed" else "embed"
    build(tie, load_weights=load).load_weights(checkpoint(f"{other}.weight"))
    neither = checkpoint("embed.weight", "head.weight")
    assert refused(build(tie, load_weights=load), neither).endswith(": embed.weight")


def test_plain_weights_that_are_tied_need_be_in_the_checkpoint_once() -> None:
    class Tied(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.first, self.second = nn.Linear(4, 4, bias=False), nn.Linear(4, 4, bias=False)
            self.second.weight = self.first.weight

        def load_weights(self, weights: Any) -> set[str]:
            return {name for name, _ in weights}

    assert declared(Tied)().load_weights([("second.weight", torch.ones(4, 4))]) == {"second.weight"}
    assert refused(declared(Tied)(), []).endswith(": first.weight")


class Eight(LinearMethodBase):
    """A quantization that needs a scale, and finds it when all is loaded."""

    def create_weights(self, layer: nn.Module, *args: Any, **kwargs: Any) -> None:
        layer.weight_scale = nn.Parameter(torch.empty(1))

    def apply(self, layer: nn.Module, x: torch.Tensor, bias: torch.Tensor | None = None) -> torch.Tensor:
        return x


def test_quantized_layers_may_have_parameters_that_are_in_no_checkpoint() -> None:
    class Quantized(Network):
        def __init__(self) -> None:
            super().__init__()
            config: Any = SimpleNamespace(get_quant_method=lambda *_: Eight(), online_quantization_config=None)
            self.projection = ReplicatedLinear(4, 4, bias=False, quant_config=config)
            self.projection.quant_config = None  # the loader would ask it for more

    model = declared(Quantized)()
    assert not model.projection.weight_scale.isnan().any()
    model.load_weights(checkpoint("projection.weight", "projection.bias"))
    assert "head.weight" in refused(
        declared(Quantized)(), checkpoint("projection.weight", "projection.bias", "head.weight")
    )


def test_a_declared_model_in_another_and_a_base_class_are_checked_when_all_is_loaded() -> None:
    class Base(Network):
        def load_weights(self, weights: Any) -> set[str]:
            return AutoWeightsLoader(self).load_weights((n, w) for n, w in weights if n != "projection.weight")

    install_weight_check(Base)

    def load(self: Any, weights: Any) -> set[str]:
        loaded = Base.load_weights(self, weights)
        self.projection.weight.data.fill_(1)
        return {*loaded, "projection.weight"}

    declared(Base, load_weights=load)().load_weights(checkpoint())
    assert "projection.weight" in refused(Base(), checkpoint())


def test_layers_outside_of_declared_models_are_left_alone() -> None:
    before = ReplicatedLinear.__init__

    def fail(self: Any) -> None:
        Network.__init__(self)
        raise ValueError("no such model")

    with pytest.raises(ValueError, match="no such model"):
        declared(__init__=fail)()
    assert ReplicatedLinear.__init__ is before
