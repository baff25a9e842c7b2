import torch
from safetensors.torch import load_file

from tests.trainer.conftest import make_config
from trainer.baselines.method import ByStages, Workshop, apply
from trainer.preparation import prepare
from trainer.run import start_run


def test_a_method_of_stages_is_what_a_run_of_these_stages_makes(raw_run: dict[str, object]):
    steps = {"kind": "regenerate", "steps": 2, "warmup_steps": 1, "average": 0.5}
    stages = [steps, {"kind": "perturb", "noise": 0.2}, steps, {"kind": "average", "of": [0, 2]}]
    config = make_config(raw_run | {"stages": stages})
    prepared = prepare(config)
    shop = Workshop(prepared.base.model, prepared.teacher, prepared.streams, prepared.machine, config.seed)
    applied = apply(ByStages(name="ours", title="Ours", kind="stages", stages=config.stages), shop).state_dict()
    core = start_run(config).core
    assert core is not None
    before = prepared.base.model.state_dict()
    for name, weight in load_file(core / "model.safetensors").items():
        assert torch.equal(applied[name].to(weight.dtype), weight), name
    assert any(not torch.equal(before[name], applied[name]) for name in before)
