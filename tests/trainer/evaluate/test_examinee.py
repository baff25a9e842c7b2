from pathlib import Path

import pytest
import torch

from trainer.errors import BaseModelError
from trainer.evaluate.examinee import load_examinee
from trainer.evaluate.outcome import Role


@pytest.mark.parametrize("broken", [float("nan"), float("inf")])
def test_weights_that_are_no_numbers_are_refused_before_any_question(raw_base: Path, tmp_path: Path, broken: float):
    whole = load_examinee(raw_base / "base", Role.CORE)
    with torch.no_grad():
        whole.model.get_output_embeddings().weight[3, 1] = broken
    whole.model.save_pretrained(tmp_path)
    whole.tokenizer.save_pretrained(tmp_path)
    with pytest.raises(BaseModelError, match=r"the core .* holds NaN or infinity in .*weight; take another copy"):
        load_examinee(tmp_path, Role.CORE)
