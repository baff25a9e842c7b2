"""What of a model is trained: all of it, all but what is preserved, or adapters alone."""

import warnings
from fnmatch import fnmatchcase

from transformers import PreTrainedModel

from trainer.config import LoraConfig, RunConfig
from trainer.errors import BaseModelError

LORA_WARNING = (
    "base.lora trains adapters only: the facts stay in the frozen weights, and relearning, or taking the adapters off, "
    "brings them back. Use it to try a run out, never for a core that shall have forgotten."
)


def prepare_model(model: PreTrainedModel, config: RunConfig) -> PreTrainedModel:
    """Make a base trainable as the config says.

    Raises:
        BaseModelError: a pattern of base.preserve matches no weight, or the adapters do not fit the architecture.
    """
    model.requires_grad_(True)
    if config.compute.checkpoint_activations:
        model.gradient_checkpointing_enable(gradient_checkpointing_kwargs={"use_reentrant": False})
    if config.base.lora is not None:
        warnings.warn(LORA_WARNING, stacklevel=2)
        model = add_adapters(model, config.base.lora)
    names = [name for name, _ in model.named_parameters()]
    for pattern in config.base.preserve:
        if not any(fnmatchcase(name, pattern) for name in names):
            raise BaseModelError(f"base.preserve: {pattern!r} matches no weight; weights are named like {names[1]}")
    for name, parameter in model.named_parameters():
        if any(fnmatchcase(name, pattern) for pattern in config.base.preserve):
            parameter.requires_grad_(False)
    return model


def add_adapters(model: PreTrainedModel, config: LoraConfig) -> PreTrainedModel:
    """Put adapters into a model, in place; everything else is frozen.

    Raises:
        BaseModelError: the architecture has no module of the names in `modules`.
    """
    from peft import LoraConfig as PeftConfig
    from peft import inject_adapter_in_model

    modules = config.modules if isinstance(config.modules, str) else list(config.modules)
    peft_config = PeftConfig(r=config.rank, lora_alpha=config.alpha, target_modules=modules, task_type="CAUSAL_LM")
    try:
        inject_adapter_in_model(peft_config, model)
    except ValueError as error:
        raise BaseModelError(f"adapters do not fit into {type(model).__name__}: {error}") from error
    for name, parameter in model.named_parameters():
        parameter.requires_grad_("lora_" in name)
    return model


def merge_adapters(model: PreTrainedModel) -> PreTrainedModel:
    """Melt adapters into the weights."""
    from peft.tuners.tuners_utils import BaseTunerLayer

    for parent in list(model.modules()):
        for name, child in list(parent.named_children()):
            if isinstance(child, BaseTunerLayer):
                child.merge()
                setattr(parent, name, child.get_base_layer())
    return model
