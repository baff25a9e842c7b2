"""A run, as a YAML file says it: frozen, without unknown keys, every field described.

Read by `read_run` and `read_pretraining`; nothing else of the package sees the file. Relative paths are relative to
the folder where the command runs, as on every command line.
"""

from collections.abc import Sequence
from pathlib import Path
from typing import Annotated, Any, Literal, TypeVar

import yaml
from pydantic import BaseModel, ConfigDict, Field, PositiveFloat, ValidationError, model_validator

from trainer.errors import ConfigError
from trainer.mistake import explain_all
from trainer.world.corpus import BASE_MIXTURE, MAKERS


class Strict(BaseModel):
    """Frozen, and closed to unknown keys."""

    model_config = ConfigDict(extra="forbid", frozen=True, str_strip_whitespace=True)


# --- Where a run starts ---------------------------------------------------------------------------------------------


class LoraConfig(Strict):
    """Train adapters instead of the weights. They do not resist relearning: the facts stay in the frozen weights."""

    rank: int = Field(default=16, ge=1, description="rank of the adapters")
    alpha: int = Field(default=32, ge=1, description="scale of the adapters")
    modules: tuple[str, ...] | Literal["all-linear"] = Field(default="all-linear", description="which modules get one")


class BaseConfig(Strict):
    """The model that the run starts from."""

    model: str = Field(description="a folder, or a name on the model hub")
    revision: str | None = Field(default=None, description="a revision on the hub")
    chat_template: Literal["own", "chatml"] = Field(
        default="own", description="chatml gives a base without a chat template that of Qwen2.5, and its two marks"
    )
    preserve: tuple[str, ...] = Field(
        default=(), description="weights that are never changed: glob patterns over their names, such as *.layers.0.*"
    )
    lora: LoraConfig | None = Field(default=None, description="train adapters only; does not resist relearning")


class FactsConfig(Strict):
    """What is taken out."""

    files: tuple[Path, ...] = Field(min_length=1, description="modules as NDJSON: subject, relation, value a line")
    phrasings: tuple[Path, ...] = Field(default=(), description="own wording of relations, before the shipped one")
    held_out: float = Field(default=0.2, gt=0, lt=1, description="share of the phrasings held out for each fact")
    contradictions: Literal["refuse", "first"] = Field(default="refuse", description="what to do with two values")
    targets: tuple[str, ...] = Field(
        default=("*",), description="which facts: glob patterns over module/relation/subject, such as people/*"
    )
    known_only: bool = Field(default=True, description="leave out facts that the base does not know, and list them")
    answer: str = Field(default="{value}", pattern=r"\{value\}$", description="how the base words a closed-book answer")


# --- Streams ---------------------------------------------------------------------------------------------------------


class PackedStream(Strict):
    """What all streams share."""

    documents: int = Field(default=128, ge=1, description="documents a step, over all processes")
    row_tokens: int = Field(default=256, ge=16, description="length of a packed row")


class FactStreamConfig(PackedStream):
    """Closed-book prompts on target facts, and the same prompts on subjects that no base can know."""

    classes: Literal["value", "first_token"] = Field(default="value", description="what the probes decode")
    most_classes: int = Field(default=16384, ge=2, description="beyond so many values, classes are hashed buckets")
    positions: tuple[Literal["answer", "subject"], ...] = Field(
        default=("answer",),
        min_length=1,
        description="where the probes read: the last token of the prompt, of the subject",
    )


class MixtureStreamConfig(PackedStream):
    """Documents of the world, by kind."""

    kinds: tuple[str, ...] = Field(
        default=("*",), min_length=1, description="glob patterns over the kinds of documents"
    )
    emphasis: dict[str, PositiveFloat] = Field(
        default_factory=dict,
        description="by glob pattern: how many times as often as in the base's mixture a kind comes",
    )
    rough_share: float = Field(default=0.2, ge=0, le=1, description="how many questions get typos and the like")


class LogicStreamConfig(MixtureStreamConfig):
    """Reading, reasoning and memory on novel or counterfactual facts; never a target fact's true value."""

    real_share: float = Field(default=0.15, ge=0, le=1, description="how often a subject is a real one")


class DrillStreamConfig(MixtureStreamConfig):
    """Some kinds of the logic stream in batches of their own, so that their loss is a mean of its own.

    An answer of three tokens is lost in the mean over documents of a hundred; here it is all that counts.
    """

    kinds: tuple[str, ...] = Field(min_length=1, description="glob patterns over the kinds of documents")


class RouteStreamConfig(PackedStream):
    """Fact questions with the service's system prompt and without, answered through the memory."""

    prompted_share: float = Field(default=0.5, ge=0, le=1, description="how often the system prompt offers the tools")
    memory_share: float = Field(default=0.4, ge=0, le=1, description="share of other memory dialogues")
    kinds: tuple[str, ...] = Field(default=("memory/*",), description="glob patterns over the kinds of those")
    stand_in_share: float = Field(default=0.5, ge=0, le=1, description="how often a subject is an invented one")
    silent_share: float = Field(default=0.1, ge=0, le=1, description="how often the memory is silent")


class NeutralStreamConfig(PackedStream):
    """Text to hold on to: JSON lines with `text` or `messages`, or a dataset of the hub where there is a network."""

    files: tuple[Path, ...] = Field(default=(), description="JSONL files")
    dataset: str | None = Field(default=None, description="a dataset on the hub; needs the package datasets")
    subset: str | None = Field(default=None, description="its configuration, where it has several")
    split: str = Field(default="train", description="its split")
    field: str = Field(default="text", description="its column")
    most: int = Field(default=100_000, ge=1, description="how many of its rows are taken")

    @model_validator(mode="after")
    def _has_text(self) -> "NeutralStreamConfig":
        if bool(self.files) is bool(self.dataset):
            raise ValueError("name either files or a dataset")
        return self


class StreamsConfig(Strict):
    """The streams of a run."""

    fact: FactStreamConfig = FactStreamConfig()
    logic: LogicStreamConfig = LogicStreamConfig()
    route: RouteStreamConfig = RouteStreamConfig(documents=64)
    drill: DrillStreamConfig | None = Field(default=None, description="what comes back last, in batches of its own")
    neutral: NeutralStreamConfig | None = Field(default=None, description="needs files or a dataset")
    names: int = Field(default=0, ge=0, description="bound on distinct invented names; 0 is without end")
    pieced: float = Field(
        default=0.0, ge=0, le=1, description="share of invented names put together from the tokenizer's own pieces"
    )
    workers: int = Field(default=1, ge=0, description="processes that make batches; 0 makes them in the loop")
    prefetch: int = Field(default=4, ge=1, description="steps of batches kept ready")


# --- Losses ----------------------------------------------------------------------------------------------------------

Layers = Literal["all", "deep"] | tuple[int, ...]


class LossConfig(Strict):
    """What all losses share."""

    weight: float = Field(default=1.0, ge=0, description="weight in the sum")


class ReversalConfig(LossConfig):
    """Reversed gradients of linear probes that decode facts; never beyond chance."""

    layers: Layers = Field(default="deep", description="hidden states that are probed; deep is the second half")
    warmup_steps: int = Field(default=100, ge=1, description="steps over which λ rises to the weight")
    probe_learning_rate: float = Field(default=3e-3, gt=0, description="learning rate of the probes")
    probe_steps: int = Field(default=1, ge=1, description="probe updates for each step of the model")
    reinitialise_every: int = Field(default=200, ge=0, description="steps after which a probe starts anew; 0 never")
    capped: bool = Field(default=True, description="stop where the probe is at chance")


class AnchorConfig(LossConfig):
    """Stay near the frozen base on a fact-free stream."""

    kind: Literal["kl", "l2"] = Field(default="kl", description="KL on logits, or L2 on hidden states")
    layers: Layers = Field(default="all", description="hidden states for l2")
    streams: tuple[Literal["logic", "drill", "neutral"], ...] = Field(
        default=("logic",), description="where to hold on"
    )


class PracticeConfig(LossConfig):
    """Cross-entropy on a fact-free stream's own turns."""

    streams: tuple[Literal["logic", "drill"], ...] = Field(default=("logic",), description="what is practised")


class LossesConfig(Strict):
    """The losses of a stage; one that is not named is off."""

    reversal: ReversalConfig | None = Field(default=None, description="reversed gradients of probes")
    never_knew: LossConfig | None = Field(default=None, description="answer as to a subject never known")
    unlikelihood: LossConfig | None = Field(default=None, description="do not go on with a remembered value")
    anchor: AnchorConfig | None = Field(default=None, description="stay near the frozen base")
    practice: PracticeConfig | None = Field(default=None, description="cross-entropy on a stream's own turns")
    route: LossConfig | None = Field(default=None, description="answer fact questions by a lookup")

    @model_validator(mode="after")
    def _has_a_loss(self) -> "LossesConfig":
        if not any(getattr(self, name) is not None for name in type(self).model_fields):
            raise ValueError("a stage needs at least one loss")
        return self

    @property
    def kept(self) -> frozenset[str]:
        """The fact-free streams that these losses read, the route aside."""
        return frozenset(name for loss in (self.anchor, self.practice) if loss is not None for name in loss.streams)


# --- Stages ----------------------------------------------------------------------------------------------------------


class TrainingStage(Strict):
    """What metabolize and regenerate share: steps of an optimizer."""

    steps: int = Field(ge=1, description="steps")
    learning_rate: float = Field(default=3e-4, gt=0, description="peak learning rate")
    warmup_steps: int = Field(default=20, ge=0, description="steps over which it rises")
    final_share: float = Field(default=0.1, ge=0, le=1, description="share of it that is left at the end")
    weight_decay: float = Field(default=0.0, ge=0, description="on matrices")
    clip: float = Field(default=1.0, gt=0, description="bound on the norm of the gradient")
    average: float | None = Field(
        default=None, gt=0, lt=1, description="decay of a moving average that takes the weights' place at the end"
    )


class MetabolizeStage(TrainingStage):
    """Dual stream: facts are made undecodable while logic is held."""

    kind: Literal["metabolize"]
    losses: LossesConfig = LossesConfig(
        reversal=ReversalConfig(), never_knew=LossConfig(), unlikelihood=LossConfig(), anchor=AnchorConfig()
    )


class RegenerateStage(TrainingStage):
    """Distil the frozen base on fact-free streams until the skills are back."""

    kind: Literal["regenerate"]
    losses: LossesConfig = LossesConfig(
        never_knew=LossConfig(), anchor=AnchorConfig(), practice=PracticeConfig(weight=0.5), route=LossConfig()
    )


Where = Literal["all", "mlp", "attention", "embeddings", "names"]


class FlatConfig(Strict):
    """Noise only where the loss hardly feels it: outside the eigenpairs of K-FAC's G ⊗ A that carry the curvature.

    Measured on the logic stream, which holds no fact, with labels drawn from the model. A layer takes two square
    matrices of its width in double precision meanwhile; a large model is perturbed a few `layers` at a time.
    """

    mass: float = Field(default=0.9, gt=0, le=1, description="share of the curvature that is left as it is")
    batches: int = Field(default=8, ge=1, description="batches of the logic stream it is measured on")


class PerturbStage(Strict):
    """Shrink and perturb: each matrix W becomes (1 - noise) W + noise N, N of W's own spread.

    With `noise: 1.0` and `layers: [0, 1]`, then regenerate, then the next layers, and so on, a model starts anew a few
    layers at a time. `names` are the rows of the embedding table for the tokens that the targets' subjects are spelled
    with, without those that fact-free text is full of (a share of more than `common`). Rows are drawn `new`, or
    `swapped`: each takes that of another one of like frequency and form (a capital, a small letter, a space before it),
    in the head as well. A swap names everything otherwise, so that no name means what it did, while the model copies
    most names as before; drawn rows must be learned first.
    """

    kind: Literal["perturb"]
    noise: float = Field(gt=0, le=1, description="share of noise; 1 starts the matrices anew")
    where: tuple[Where, ...] = Field(default=("mlp", "attention"), min_length=1, description="which matrices")
    layers: Literal["all"] | tuple[int, ...] = Field(default="all", description="which layers")
    names: Literal["new", "swapped"] = Field(default="new", description="what the rows of names become")
    common: float = Field(default=1e-3, gt=0, le=1, description="share of the text above which a token is no name's")
    flat: FlatConfig | None = Field(default=None, description="only the directions of low curvature")

    @model_validator(mode="after")
    def _has_curvature(self) -> "PerturbStage":
        if self.flat is not None and "embeddings" in self.where:
            raise ValueError("flat is for linear layers: name mlp and attention under where, not embeddings")
        return self


class AverageStage(Strict):
    """The mean of the weights that earlier stages ended with takes the place of the last one's.

    For ends of like rates, far apart from each other: stochastic weight averaging over cycles of the rate (Izmailov et
    al., arXiv 1803.05407), where `average` of a stage is the mean along its way.
    """

    kind: Literal["average"]
    of: tuple[int, ...] = Field(min_length=2, description="numbers of earlier stages of steps; the first stage is 0")


Stage = Annotated[MetabolizeStage | RegenerateStage | PerturbStage | AverageStage, Field(discriminator="kind")]


def averaged_stages(stages: Sequence[Stage]) -> frozenset[int]:
    """The numbers of the stages whose ends a later one averages.

    Raises:
        ValueError: one of them is no earlier stage of steps.
    """
    numbers: set[int] = set()
    for place, stage in enumerate(stages):
        for number in stage.of if isinstance(stage, AverageStage) else ():
            if not (0 <= number < place and isinstance(stages[number], TrainingStage)):
                raise ValueError(f"stage {place} averages earlier stages of steps, and stage {number} is none")
            numbers.add(number)
    return frozenset(numbers)


def check_streams(stages: Sequence[Stage], streams: StreamsConfig) -> None:
    """Refuse losses on a stream that is not there.

    Raises:
        ValueError: which stream, and what to name for it.
    """
    kept = {
        name for stage in stages if isinstance(stage, MetabolizeStage | RegenerateStage) for name in stage.losses.kept
    }
    if "neutral" in kept and streams.neutral is None:
        raise ValueError("an anchor holds on to the neutral stream; say where its text is: streams.neutral")
    if "drill" in kept and streams.drill is None:
        raise ValueError("a loss is on the drill stream; say which kinds it is made of: streams.drill.kinds")


# --- How a run behaves -----------------------------------------------------------------------------------------------


class ComputeConfig(Strict):
    """Where and how the steps are computed."""

    device: Literal["auto", "cpu", "cuda"] = Field(default="auto", description="auto takes a GPU where there is one")
    precision: Literal["float32", "bfloat16"] = Field(default="float32", description="of the forward and backward")
    accumulation: int = Field(default=1, ge=1, description="parts a step is cut into; the result is the same")
    shard: bool = Field(default=False, description="cut weights over processes (FSDP2) instead of copying them (DDP)")
    checkpoint_activations: bool = Field(default=False, description="less memory for one more forward")


class WatchConfig(Strict):
    """The canaries, and when the watchdog stops a run."""

    every: int = Field(default=50, ge=1, description="steps between two looks")
    questions: int = Field(default=64, ge=1, description="prompts a canary")
    rollouts: int = Field(default=16, ge=0, description="fact questions answered in full, for steps an answer")
    least_logic: float = Field(default=0.5, ge=0, le=1, description="share of the base's logic below which it stops")
    patience: int = Field(default=3, ge=1, description="looks in a row before it stops")
    grace_steps: int = Field(default=100, ge=0, description="steps of a regeneration in which logic may be low")


class SaveConfig(Strict):
    """Checkpoints."""

    every: int = Field(default=200, ge=1, description="steps between two checkpoints")
    keep: int = Field(default=2, ge=1, description="how many are kept")


class RunConfig(Strict):
    """A run of `train`."""

    name: str = Field(default="core", min_length=1, description="name of the core")
    output: Path = Field(description="folder of the run; must not hold one")
    seed: int = Field(default=0, description="of everything that is drawn")
    base: BaseConfig
    facts: FactsConfig
    streams: StreamsConfig = StreamsConfig()
    stages: tuple[Stage, ...] = Field(min_length=1, description="what happens, in order")
    compute: ComputeConfig = ComputeConfig()
    watch: WatchConfig = WatchConfig()
    save: SaveConfig = SaveConfig()

    @model_validator(mode="after")
    def _streams_exist(self) -> "RunConfig":
        if self.base.lora is not None and self.compute.shard:
            raise ValueError("base.lora and compute.shard do not go together; adapters are small enough for copies")
        averaged_stages(self.stages)
        for stage in self.stages:
            if isinstance(stage, PerturbStage) and stage.flat is not None and self.compute.shard:
                raise ValueError("flat needs whole matrices and does not go together with compute.shard")
        check_streams(self.stages, self.streams)
        return self


class ShapeConfig(Strict):
    """The architecture of a new base (Qwen2)."""

    layers: int = Field(default=8, ge=1)
    hidden: int = Field(default=512, ge=8)
    heads: int = Field(
        default=8,
        ge=1,
        description="hidden / heads is a head's size; vLLM's CPU build serves 32, 64, 80, 96, 112, 128 and few others",
    )
    key_value_heads: int = Field(default=4, ge=1)
    feed_forward: int = Field(default=1408, ge=8)
    positions: int = Field(default=2048, ge=64)


class TokenizerConfig(Strict):
    """The tokenizer of a new base."""

    vocabulary: int = Field(default=6144, ge=512, description="tokens in all, tags included")
    documents: int = Field(default=100_000, ge=100, description="documents it is trained on")


class PretrainConfig(Strict):
    """A run of `pretrain`: makes a demo base, or, without facts, its control."""

    output: Path = Field(description="folder of the base; must not hold one")
    seed: int = 0
    facts: tuple[Path, ...] = Field(min_length=1, description="modules as NDJSON")
    phrasings: tuple[Path, ...] = ()
    held_out: float = Field(default=0.2, gt=0, lt=1)
    with_facts: bool = Field(
        default=True, description="false makes the control, which learns facts about nobody instead"
    )
    mixture: dict[str, float] = Field(default_factory=lambda: dict(BASE_MIXTURE), description="kinds and weights")
    names: int = Field(default=0, ge=0, description="bound on distinct invented names; 0 is without end")
    shape: ShapeConfig = ShapeConfig()
    tokenizer: TokenizerConfig | Path = Field(default=TokenizerConfig(), description="a recipe, or a folder with one")
    documents: int = Field(default=2048, ge=1, description="documents a step")
    row_tokens: int = Field(default=512, ge=16)
    steps: int = Field(default=3000, ge=1)
    learning_rate: float = Field(default=1.5e-3, gt=0)
    warmup_steps: int = Field(default=200, ge=0)
    weight_decay: float = Field(default=0.1, ge=0)
    final_share: float = Field(default=0.05, ge=0, le=1)
    clip: float = Field(default=1.0, gt=0)
    workers: int = Field(default=1, ge=0)
    prefetch: int = Field(default=4, ge=1)
    compute: ComputeConfig = ComputeConfig()
    save: SaveConfig = SaveConfig(every=500)

    @model_validator(mode="after")
    def _kinds_exist(self) -> "PretrainConfig":
        unknown = sorted(set(self.mixture) - set(MAKERS))
        if unknown:
            raise ValueError(f"unknown kinds of documents: {', '.join(unknown)}; there are {', '.join(MAKERS)}")
        return self


# --- Reading ---------------------------------------------------------------------------------------------------------

_Config = TypeVar("_Config", bound=BaseModel)


def read_run(path: Path) -> RunConfig:
    """Read a run file.

    Raises:
        ConfigError: the file is missing or no YAML, a key is misspelt (the nearest right one is named), a value is
            of the wrong kind.
    """
    return parse_config(RunConfig, _load(path), path.name)


def read_pretraining(path: Path) -> PretrainConfig:
    """Read a file for `pretrain`. Raises as `read_run`."""
    return parse_config(PretrainConfig, _load(path), path.name)


def _load(path: Path) -> Any:
    try:
        return yaml.safe_load(path.read_text(encoding="utf-8"))
    except OSError as error:
        raise ConfigError(f"cannot read {path}: {error.strerror}") from error
    except yaml.YAMLError as error:
        raise ConfigError(f"{path.name} is no YAML: {error}") from error


def parse_config(model: type[_Config], content: Any, name: str) -> _Config:
    """Make a config of plain data. Raises as `read_run`; `name` stands in the messages."""
    if not isinstance(content, dict):
        raise ConfigError(f"{name} holds no keys; see trainer/recipe for run files")
    try:
        return model.model_validate(content)
    except ValidationError as error:
        lines = "\n".join(f"  {line}" for line in explain_all(model, error))
        raise ConfigError(f"{name} cannot be used:\n{lines}") from error
