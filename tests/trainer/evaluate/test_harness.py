import pytest

from trainer.errors import BaseModelError
from trainer.evaluate.harness import run_tasks, worked_steps


def scripted(**samples):
    """Stands for the harness: gives these samples, whatever is asked."""
    return lambda **_: {"samples": samples}


def row(number: int, right: float, text: str = "", metric: str = "exact_match") -> dict[str, object]:
    return {"doc_id": number, metric: right, "resps": [[text]]}


def test_samples_come_in_the_order_of_tasks_and_documents():
    harness = scripted(b=[row(1, 1.0), row(0, 0.0)], a=[row(0, 1.0)])
    samples = run_tasks(harness, "core", "cpu", ["a", "b"], limit=None, batch=1)
    assert [(one.task, one.document, one.right) for one in samples] == [("a", 0, True), ("b", 0, False), ("b", 1, True)]


def test_the_first_filter_of_a_document_counts_once():
    harness = scripted(a=[row(0, 1.0), row(0, 0.0)])
    (sample,) = run_tasks(harness, "core", "cpu", ["a"], limit=None, batch=1)
    assert sample.right


def test_a_task_without_a_known_metric_is_refused_by_name():
    with pytest.raises(BaseModelError, match="the task a"):
        run_tasks(scripted(a=[row(0, 1.0, metric="bleu")]), "core", "cpu", ["a"], limit=None, batch=1)


def test_an_unknown_task_says_where_the_names_stand():
    def harness(**_):
        raise KeyError("nothing")

    with pytest.raises(BaseModelError, match="lm_eval ls tasks"):
        run_tasks(harness, "core", "cpu", ["nothing"], limit=None, batch=1)


def test_a_worked_step_is_a_line_with_a_calculation():
    assert worked_steps("He has 3 + 4 = 7 apples. Then 7 * 2 = 14.\nSo the answer is 14.") == 2
    assert worked_steps("The answer is 14.") == 0


@pytest.mark.parametrize("chat", [True, False])
def test_a_model_is_asked_in_its_own_chat_format(chat: bool):
    told = {}

    def harness(**options):
        told.update(options)
        return {"samples": {"a": [row(0, 1.0)]}}

    run_tasks(harness, "core", "cpu", ["a"], limit=None, batch=1, chat=chat)
    assert told["apply_chat_template"] is chat
