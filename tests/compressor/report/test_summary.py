"""What a repair leaves stands in every summary: first where it is much."""

from compressor.report.summary import summary, verdicts


def report(lost, same=0.875, **more):
    repair = {
        "chosen": "refit",
        "divergences": {"sliced": 3.0, "refit": lost},
        "agreement": same,
        "samples": {"given": 500, "used": 480, "held_out": 96},
    }
    budget = {"kind": "macs", "amount": 0.5, "unit": "share"}
    return {"model": "net", "budget": budget, "repair": repair, **more}


def test_what_is_lost_stands_first_where_it_is_much():
    first, *_ = verdicts(report(0.25))
    assert first.mark == "bad"
    assert first.short == "Much is lost: an error of 25 % of what the original's outputs vary by."
    assert "The class is the original's on 87.5 % of these." in first.full
    assert "500 inputs were given, 480 used, and 96 of them only judge." in first.full
    assert "--distill" in first.full


def test_an_estimate_stands_in_every_summary_where_there_were_inputs():
    found = list(verdicts(report(0.0123)))
    (kept,) = [one for one in found if "The repair leaves" in one.short]
    assert kept.mark == "open"
    assert found[0] != kept
    assert "an error of 1.23 % of what" in summary(report(0.0123))
    assert not [one for one in verdicts(report(0.0123) | {"repair": None}) if "repair" in one.short]


def test_outputs_that_are_no_class_scores_have_no_classes():
    first, *_ = verdicts(report(0.25, same=None))
    assert "class" not in first.full


def test_a_repair_before_training_is_no_verdict_on_what_is_deployed():
    found = list(verdicts(report(0.5, training={"phases": []})))
    (kept,) = [one for one in found if "The repair leaves" in one.short]
    assert (kept.mark, "before training" in kept.short) == ("open", True)
