"""Where a run computes: one process or several, a CPU or GPUs. The one file that knows `accelerate`.

Started by `accelerate launch`, on CPUs by `torch.distributed.run`, the processes share each step: every stream's batch
is cut into as many parts as there are processes times parts of accumulation, and sums are divided by counts over all of
them, so the losses do not depend on how many there are.
"""

import contextlib
from collections.abc import Iterator, Mapping
from typing import Any

import torch
from accelerate import Accelerator
from accelerate.utils import DistributedDataParallelKwargs
from torch import Tensor, nn
from torch.distributed.checkpoint.state_dict import (
    StateDictOptions,
    get_model_state_dict,
    get_state_dict,
    set_model_state_dict,
    set_state_dict,
)
from torch.distributed.device_mesh import init_device_mesh
from torch.distributed.fsdp import FSDPModule, fully_shard
from torch.distributed.tensor import DTensor

from trainer.config import ComputeConfig
from trainer.errors import ConfigError


class Machine:
    """This process's device, its number among the processes, and what they do together.

    With `looks_for_unused`, a pass may leave weights untouched, as one that ends at a probed layer does; to find them
    the processes walk through the graph of each pass.
    """

    def __init__(self, config: ComputeConfig, *, looks_for_unused: bool = True) -> None:
        if config.device == "cuda" and not torch.cuda.is_available():
            raise ConfigError("compute.device is cuda, but no GPU is to be seen; set it to auto or cpu")
        self.config = config
        unused = DistributedDataParallelKwargs(find_unused_parameters=looks_for_unused)
        self._accelerator = Accelerator(
            cpu=config.device == "cpu" or not torch.cuda.is_available(), kwargs_handlers=[unused]
        )

    @property
    def device(self) -> torch.device:
        """Where tensors live."""
        device: torch.device = self._accelerator.device
        return device

    @property
    def processes(self) -> int:
        """How many processes share the run."""
        return int(self._accelerator.num_processes)

    @property
    def is_main(self) -> bool:
        """Whether this process writes files and bars."""
        return bool(self._accelerator.is_main_process)

    @property
    def shares(self) -> tuple[int, ...]:
        """The parts of each batch that are this process's own."""
        parts = self.config.accumulation
        return tuple(range(self._accelerator.process_index * parts, (self._accelerator.process_index + 1) * parts))

    @property
    def parts(self) -> int:
        """How many parts a batch is cut into, over all processes."""
        return self.processes * self.config.accumulation

    def wrap(self, model: nn.Module) -> nn.Module:
        """Move a model to the device and, with several processes, keep its copies or its parts in step.

        Parts are cut by torch's `fully_shard` itself, as accelerate's way to it leaves out CPUs.
        """
        if not self.config.shard or self.processes == 1:
            wrapped: nn.Module = self._accelerator.prepare_model(model)
            return wrapped
        model = model.to(self.device)
        mesh = init_device_mesh(self.device.type, (self.processes,))
        blocks = [module for module in model.modules() if isinstance(module, nn.ModuleList)]
        for block in (block for found in blocks for block in found):
            fully_shard(block, mesh=mesh)
        fully_shard(model, mesh=mesh)  # changes the model in place
        return model

    def unwrap(self, model: nn.Module) -> nn.Module:
        """The model itself."""
        bare: nn.Module = self._accelerator.unwrap_model(model)
        return bare

    @contextlib.contextmanager
    def computing(self, model: nn.Module, *, shares_gradients: bool) -> Iterator[None]:
        """Around a forward and its backward: the precision, and whether gradients are shared at its end."""
        if isinstance(model, FSDPModule):
            model.set_requires_gradient_sync(shares_gradients)
        quiet = shares_gradients or isinstance(model, FSDPModule)
        with contextlib.nullcontext() if quiet else self._accelerator.no_sync(model), self.precision():
            yield

    @contextlib.contextmanager
    def whole(self, model: nn.Module) -> Iterator[None]:
        """Around looks that read the bare model: what is cut and not gathered by itself is whole meanwhile."""
        if isinstance(model, FSDPModule):
            model.unshard()
        try:
            yield
        finally:
            if isinstance(model, FSDPModule):
                model.reshard()

    def precision(self) -> contextlib.AbstractContextManager[object]:
        """Around a forward: bfloat16 where the config says so."""
        if self.config.precision == "bfloat16":
            return torch.autocast(self.device.type, torch.bfloat16)
        return contextlib.nullcontext()

    def total(self, values: Mapping[str, float]) -> dict[str, float]:
        """The sum of each value over the processes."""
        if self.processes == 1 or not values:
            return dict(values)
        names = sorted(values)
        summed = self._accelerator.reduce(
            torch.tensor([values[name] for name in names], dtype=torch.float64, device=self.device), "sum"
        )
        return dict(zip(names, summed.tolist(), strict=True))

    def any(self, wish: bool) -> bool:
        """Whether any process wishes something, so that all of them stop at the same step."""
        return self.total({"wish": float(wish)})["wish"] > 0

    def share_gradients(self, module: nn.Module) -> None:
        """Add up the gradients of a module that is not wrapped."""
        if self.processes == 1:
            return
        for parameter in module.parameters():
            if parameter.grad is not None:
                parameter.grad.copy_(self._accelerator.reduce(parameter.grad, "sum"))

    def clip(self, model: nn.Module, most: float) -> Tensor:
        """Bound the norm of the gradient; the norm before comes back."""
        norm = nn.utils.clip_grad_norm_(model.parameters(), most)
        return gathered(norm)

    def state(self, model: nn.Module, optimizer: torch.optim.Optimizer) -> tuple[dict[str, Any], dict[str, Any]]:
        """All weights and all of the optimizer's moments, on the CPU, gathered where they are cut (FSDP)."""
        options = StateDictOptions(full_state_dict=True, cpu_offload=True)
        weights, moments = get_state_dict(self.unwrap(model), optimizer, options=options)
        return dict(weights), dict(moments)

    def weights(self, model: nn.Module) -> dict[str, Any]:
        """All weights, on the CPU, gathered where they are cut."""
        options = StateDictOptions(full_state_dict=True, cpu_offload=True)
        return dict(get_model_state_dict(self.unwrap(model), options=options))

    def restore(
        self, model: nn.Module, optimizer: torch.optim.Optimizer, weights: Mapping[str, Any], moments: Mapping[str, Any]
    ) -> None:
        """Undo all training since `state`."""
        options = StateDictOptions(full_state_dict=True, cpu_offload=True)
        set_state_dict(
            self.unwrap(model),
            optimizer,
            model_state_dict=dict(weights),
            optim_state_dict=dict(moments),
            options=options,
        )

    def restore_weights(self, model: nn.Module, weights: Mapping[str, Any]) -> None:
        """Put just the weights back."""
        options = StateDictOptions(full_state_dict=True, cpu_offload=True)
        set_model_state_dict(self.unwrap(model), dict(weights), options=options)

    def wait(self) -> None:
        """Wait for the other processes."""
        self._accelerator.wait_for_everyone()


def gathered(tensor: Tensor) -> Tensor:
    """A tensor that may be cut over the processes, whole; every process has to ask."""
    return tensor.full_tensor() if isinstance(tensor, DTensor) else tensor
