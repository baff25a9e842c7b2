"""How fast a step is: tokens/s of a dual-stream step against a bare forward-backward loop, and the wait on data.

Both loops run in this process, in turns, on the same shapes. Tokens are counted for every forward and every backward:
a training pass counts three times, a pass of the frozen base once. Run as
`python -m benchmarks.trainer_speed --base DIR --facts FILE… [--documents 64] [--steps 10] [--shape qwen2.5-0.5b]`.
With `--shape`, the base lends its tokenizer to random weights of that architecture. The last line is JSON.
On a GPU of 80 GB or more, `--shape qwen2.5-0.5b --precision bfloat16 --documents 128 --row-tokens 512`.
"""

import argparse
import json
import tempfile
import time
from collections.abc import Mapping, Sequence
from pathlib import Path
from statistics import median

import torch
from tqdm import tqdm
from transformers import AutoModelForCausalLM, Qwen2Config

from trainer.config import RunConfig, parse_config
from trainer.loop import make_optimizer, take_step
from trainer.objective import Metabolism
from trainer.preparation import Prepared, prepare, probes_of
from trainer.reader import Reader, to_places
from trainer.streams.batch import Batch
from trainer.streams.feed import Feed
from trainer.tokenizer import load_tokenizer

_TRAINED, _READ = 3, 1  # forwards' worth of work: forward and backward; forward alone
_COLD = 2  # first steps, which find caches empty
_SHAPES = {
    "qwen2.5-0.5b": Qwen2Config(
        vocab_size=151936, hidden_size=896, intermediate_size=4864, num_hidden_layers=24, num_attention_heads=14,
        num_key_value_heads=2, max_position_embeddings=32768, rope_theta=1e6,  # type: ignore[call-arg]
        tie_word_embeddings=True,
    )
}  # fmt: skip


def parser() -> argparse.ArgumentParser:
    """The command line."""
    made = argparse.ArgumentParser(description=__doc__)
    made.add_argument("--base", required=True)
    made.add_argument("--facts", required=True, nargs="+")
    made.add_argument("--documents", type=int, default=64)
    made.add_argument("--row-tokens", type=int, default=256)
    made.add_argument("--steps", type=int, default=10, help="at least 2")
    made.add_argument("--precision", choices=("float32", "bfloat16"), default="float32")
    made.add_argument("--workers", type=int, default=1)
    made.add_argument("--shape", choices=sorted(_SHAPES))
    return made


def main(words: Sequence[str] | None = None) -> None:
    """Measure and print."""
    arguments = parser().parse_args(words)
    with tempfile.TemporaryDirectory() as folder:
        if arguments.shape:
            arguments.base = _random_base(arguments.base, _SHAPES[arguments.shape], Path(folder) / "base")
        prepared = prepare(_config(arguments, Path(folder)))
        print(json.dumps(_measure(prepared, arguments.steps)))


def _random_base(lender: str, shape: Qwen2Config, folder: Path) -> str:
    """A base of this shape that knows nothing, with the tokenizer of another."""
    torch.manual_seed(0)
    AutoModelForCausalLM.from_config(shape).save_pretrained(folder)  # type: ignore[no-untyped-call]
    load_tokenizer(lender).save_pretrained(folder)
    return str(folder)


def _config(arguments: argparse.Namespace, folder: Path) -> RunConfig:
    size = {"documents": arguments.documents, "row_tokens": arguments.row_tokens}
    settings = {
        "output": str(folder),
        "base": {"model": arguments.base},
        "facts": {"files": arguments.facts, "known_only": False},
        "streams": {"fact": size, "logic": size, "workers": arguments.workers, "prefetch": 4},
        "stages": [{"kind": "metabolize", "steps": 1000}],
        "compute": {"precision": arguments.precision},
        "watch": {"questions": 4, "rollouts": 0},
    }
    return parse_config(RunConfig, settings, "the benchmark")


def _measure(prepared: Prepared, steps: int) -> dict[str, object]:
    stage = prepared.config.stages[0]
    assert stage.kind == "metabolize", "the benchmark's own config"
    machine, device = prepared.machine, prepared.machine.device
    reader = Reader(prepared.base.model).to(device).train()
    objective = Metabolism(stage.losses, prepared.teacher, probes_of(prepared, stage, 0))
    optimizer = make_optimizer(reader, stage, device)
    dual_s, bare_s, dual_rates, bare_rates = [], [], [], []
    with Feed(prepared.streams, workers=prepared.config.streams.workers, prefetch=4) as feed:
        both = feed.steps(objective.streams, 0, _COLD + steps)
        for number, batches in enumerate(tqdm(both, total=_COLD + steps, desc="in turns")):
            started = _now(device)
            take_step(reader, optimizer, objective, batches, machine, stage.clip, number)
            dual = _now(device) - started
            counted = _TRAINED * sum(batches[name][0].ids_BT.size for name in objective.passes)
            counted += _READ * sum(batches[name][0].ids_BT.size for name in ("never_knew", "logic"))
            bare, bare_tokens = _bare_step(reader, batches, objective.passes, prepared)
            if number >= _COLD:
                dual_s.append(dual)
                bare_s.append(bare)
                dual_rates.append(counted / dual)
                bare_rates.append(bare_tokens / bare)
        alone = feed.steps(objective.streams, _COLD + steps, _COLD + 2 * steps)
        for number, batches in enumerate(tqdm(alone, total=steps, desc="waiting on data")):
            if number == 1:  # the bare loop's turns had given the workers time; from here on there are none
                waited, started = feed.waited_s, _now(device)
            take_step(reader, optimizer, objective, batches, machine, stage.clip, _COLD + steps + number)
        waited_share = (feed.waited_s - waited) / (_now(device) - started)
    share = median(dual_rates) / median(bare_rates)
    print(f"{'loop':24}{'s a step':>12}{'tokens/s':>14}")
    print(f"{'dual-stream step':24}{median(dual_s):12.3f}{median(dual_rates):14.0f}")
    print(f"{'bare forward-backward':24}{median(bare_s):12.3f}{median(bare_rates):14.0f}")
    print(f"share of the bare loop: {share:.1%}; waiting on data: {waited_share:.1%} of a step")
    return {
        "device": str(device),
        "dual_step_s": median(dual_s),
        "dual_tokens_per_s": median(dual_rates),
        "bare_tokens_per_s": median(bare_rates),
        "share_of_bare": share,
        "waited_share": waited_share,
        "mfu": _utilisation(prepared, median(dual_rates)),
        "peak_memory_gib": torch.cuda.max_memory_allocated() / 2**30 if device.type == "cuda" else None,
    }


def _bare_step(
    reader: Reader, batches: Mapping[str, tuple[Batch, ...]], passes: tuple[str, ...], prepared: Prepared
) -> tuple[float, int]:
    """Forward, cross-entropy, backward and nothing else, on the rows that the dual step trained on."""
    device = prepared.machine.device
    places = [to_places(batches[name][0], device) for name in passes]
    started = _now(device)
    for place in places:
        with prepared.machine.precision():
            logits, _ = reader(place)
            loss = torch.nn.functional.cross_entropy(logits.float(), place.labels_N)
        loss.backward()  # type: ignore[no-untyped-call]
    elapsed = _now(device) - started
    reader.zero_grad(set_to_none=True)
    return elapsed, _TRAINED * sum(place.ids_BT.numel() for place in places)


def _now(device: torch.device) -> float:
    if device.type == "cuda":
        torch.cuda.synchronize()
    return time.perf_counter()


_PEAK_FLOPS = {"H200": 989e12, "H100": 989e12, "A100": 312e12}


def _utilisation(prepared: Prepared, rate: float) -> float | None:
    """Share of the device's peak bfloat16 arithmetic: two operations a weight for each counted token."""
    if prepared.machine.device.type != "cuda":
        return None
    name = torch.cuda.get_device_name()
    peak = next((flops for key, flops in _PEAK_FLOPS.items() if key in name), None)
    parameters = sum(weight.numel() for weight in prepared.base.model.parameters())
    return 2 * parameters * rate / peak if peak else None


if __name__ == "__main__":
    main()
