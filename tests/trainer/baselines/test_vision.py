from trainer.baselines.vision import VisionTransformer, edited, load, recovered, train


def test_a_tenth_of_the_labels_is_wrong_and_none_of_them_by_accident_right():
    digits = load(0.1, 0)
    assert int(digits.wrong.sum()) == round(0.1 * len(digits.told))


def test_the_edit_forgets_wrong_labels_that_were_known_and_keeps_the_digits():
    digits = load(0.1, 0)
    model = VisionTransformer(width=32, depth=2, seed=0)
    known = train(model, digits, epochs=30, rate=3e-3, seed=0)
    before = recovered(model, digits)
    same = recovered(edited(model, digits, 1.0, 0, curvature=True), digits)
    assert known > 0.8
    assert same == before
    assert sum(before.unseen) / len(before.unseen) > 0.8
