"""How results are printed."""

import io

import pytest
from rich.console import Console

from service.cli.status import time_left
from service.cli.tables import number_with_interval, show_decision, show_layers
from service.domain.layers import Layer, Operation
from service.domain.results import Decision, Interval, LayerResult, VariantScore, VerifiedVariant


def interval(value: float | None, low: float | None = None, high: float | None = None) -> Interval:
    return Interval(value=value, low=low, high=high, method="mcnemar", samples=100)


def score(drop: float) -> VariantScore:
    kl = interval(0.25, 0.2, 0.3)
    return VariantScore(
        variant="x", metric=interval(0.9), drop=interval(drop, drop - 0.01, drop + 0.01), measures={"kl": kl}
    )


def layer(name: str) -> Layer:
    return Layer(id=f"node_{name}", name=name, op=Operation.CONV, activations=())


def printed(width: int = 200) -> tuple[Console, io.StringIO]:
    stream = io.StringIO()
    return Console(file=stream, width=width), stream


def test_layers_are_shown_by_rank_and_the_unranked_last_with_the_reason() -> None:
    rows = [
        LayerResult(layer=layer("broken"), state="failed", reason="NaN in the output"),
        LayerResult(layer=layer("second"), state="measured", rank=2, significant=False, score=score(0.01)),
        LayerResult(layer=layer("first"), state="measured", rank=1, significant=True, score=score(0.05)),
    ]
    console, stream = printed()
    show_layers(console, rows, metric="top1")
    text = stream.getvalue()
    assert text.index("first") < text.index("second") < text.index("broken")
    assert "0.0500 [0.0400, 0.0600]" in text
    assert "0.25" in text
    assert "failed: NaN in the output" in text


def test_a_layers_name_is_never_markup() -> None:
    console, stream = printed()
    show_layers(console, [LayerResult(layer=layer("a[red]b[/nothing]"), state="pending")], metric="top1")
    assert "a[red]b[/nothing]" in stream.getvalue()


def test_the_decision_shows_the_verified_drop_with_its_interval() -> None:
    chosen = VerifiedVariant(fallback=("node_first",), score=score(0.004), within_budget=True)
    decision = Decision(
        status="met",
        algorithm="greedy",
        fallback=("node_first",),
        fallback_names=("first",),
        max_drop=0.01,
        certain=False,
        same_samples=True,
        chosen=chosen,
        measured=(chosen,),
        explanation="The shortest list that was measured.",
    )
    console, stream = printed()
    show_decision(console, decision)
    text = stream.getvalue()
    assert "Fallback layers (1): first" in text
    assert "Verified drop: 0.0040 [-0.0060, 0.0140], measured on 100 samples (mcnemar); budget 0.01" in text


def test_a_number_that_is_not_defined_says_why() -> None:
    assert number_with_interval(interval(None)) == "not defined: mcnemar"


@pytest.mark.parametrize(
    ("seconds", "text"),
    [(None, ""), (3.2, "about 3 s left"), (80, "about 1 min 20 s left"), (3700, "about 1 h 1 min left")],
)
def test_the_time_that_is_left(seconds: float | None, text: str) -> None:
    assert time_left(seconds) == text
