"""What the stages of a run name, held against the base before the first step: layers, matrices, rows of names.

Called when a run is prepared, so that what cannot be found does not end a run that is a night old.
"""

from collections.abc import Mapping

from trainer.config import AverageStage, LossesConfig, PerturbStage, RunConfig
from trainer.errors import BaseModelError, ConfigError
from trainer.objective import layers_of
from trainer.perturb import Chosen, choose
from trainer.reader import Reader, read_stream
from trainer.streams.fact import spelled_in
from trainer.streams.feed import Stream


def check_stages(
    config: RunConfig, reader: Reader, streams: Mapping[str, Stream], *, reads: bool = False
) -> dict[int, Chosen]:
    """What each perturb stage will change in the model of `reader`, by the stage's number.

    The tokens of names are counted in the logic stream only where it `reads`; else the common ones are among them.

    Raises:
        ConfigError: a stage names a layer that is not there.
        BaseModelError: a stage finds nothing to perturb, or a matrix without curvature.
    """
    found: dict[int, Chosen] = {}
    for number, stage in enumerate(config.stages):
        try:
            if isinstance(stage, PerturbStage):
                named = "names" in stage.where
                found[number] = choose(
                    reader.model, stage, preserve=config.base.preserve,
                    text=read_stream(streams["logic"], next(reader.parameters()).device) if reads and named else (),
                    spelled=spelled_in(streams) if named else {},
                )  # fmt: skip
            elif not isinstance(stage, AverageStage):
                _check_layers(stage.losses, reader.layers)
        except (ConfigError, BaseModelError) as error:
            raise type(error)(f"stages.{number}: {error}") from error
    return found


def _check_layers(losses: LossesConfig, count: int) -> None:
    for loss in (losses.reversal, losses.anchor):
        if loss is not None:
            layers_of(loss.layers, count)
