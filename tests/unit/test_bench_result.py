# SPDX-License-Identifier: Apache-2.0
from __future__ import annotations

import pytest

from bench.machine import cpu_model
from bench.plot import Plot, series
from bench.result import (
    Figure,
    Machine,
    Result,
    differences,
    from_json,
    interleaved,
    number,
    ratios,
    to_json,
    to_markdown,
)

MACHINE = Machine(
    "6.18", "Some CPU", 2, "abc1234", "python -m bench.x", "2026-01-02 03:04 UTC", 0.5
)


def figure(*rounds: float, **fields: object) -> Figure:
    return Figure("cost", "ns", rounds, **fields)  # type: ignore[arg-type]


def result(*figures: Figure) -> Result:
    return Result("x", MACHINE, figures)


def test_sides_take_turns_and_neither_is_always_first() -> None:
    order: list[str] = []

    def side(name: str) -> float:
        order.append(name)
        return len(order)

    found = interleaved({"a": lambda: side("a"), "b": lambda: side("b")}, 3)
    assert "".join(order) == "abbaab"
    assert found == {"a": (1, 4, 5), "b": (2, 3, 6)}


def test_rounds_are_compared_with_the_same_round() -> None:
    assert differences((10, 20), (1, 2)) == (9, 18)
    assert ratios((10, 20), (1, 4)) == (10, 5)
    with pytest.raises(ValueError, match="longer"):
        differences((1,), (1, 2))


def test_one_bad_round_does_not_move_the_figure() -> None:
    noisy = figure(10, 11, 900, 10.5, 9)
    assert (noisy.median, noisy.least, noisy.most) == (10.5, 9, 900)


@pytest.mark.parametrize(
    ("fields", "met"),
    [
        ({}, None),
        ({"at_most": 10.0}, True),
        ({"at_most": 9.9}, False),
        ({"at_least": 10.0}, True),
        ({"at_least": 10.1}, False),
    ],
)
def test_the_target_is_held_against_the_median(fields: dict[str, float], met: bool | None) -> None:
    assert figure(1, 10, 99, **fields).met is met


def test_json_reads_back() -> None:
    one = result(figure(1, 2, params={"flows": 5}, at_most=3.0), figure(7))
    text = to_json(one)
    assert from_json(text) == one
    assert b'"median": 1.5' in text


def test_markdown_says_where_it_comes_from_and_what_was_missed() -> None:
    text = to_markdown(
        result(
            figure(100, 130, 120, params={"flows": 1}, at_most=120.0),
            figure(240, 250, 260, params={"flows": 5000}, at_most=230.0),
        )
    )
    for part in ("6.18", "2 x Some CPU", "abc1234", "`python -m bench.x`", "2026-01-02"):
        assert part in text
    assert "| flows | median, ns | least to most | rounds | target |  |" in text
    assert "| 1 | 120 | 100 to 130 | 3 | <= 120 | met |" in text
    assert "| 5000 | 250 | 240 to 260 | 3 | <= 230 | **missed** |" in text


def test_a_table_without_targets_has_no_column_for_them() -> None:
    assert "target" not in to_markdown(result(figure(1)))


def test_figures_with_other_parameters_get_a_table_of_their_own() -> None:
    text = to_markdown(result(figure(1, params={"flows": 1}), figure(2, params={"size": 3})))
    assert text.count("## cost") == 2


@pytest.mark.parametrize(
    ("value", "text"),
    [(0.01234, "0.0123"), (12.345, "12.3"), (1234.5, "1,234"), (16381, "16,381"), (0.0, "0")],
)
def test_numbers_are_short(value: float, text: str) -> None:
    assert number(value) == text


def test_lines_of_a_plot_go_up_along_x() -> None:
    figures = [
        figure(n, params={"flows": n, "side": side}) for n in (1000, 10) for side in ("a", "b")
    ]
    found = series(Plot("p", "P", "cost", x="flows", lines="side"), result(*figures))
    across = {name: [f.params["flows"] for f in line] for name, line in found.items()}
    assert across == {"a": [10, 1000], "b": [10, 1000]}


def test_bars_in_groups_keep_their_order_too() -> None:
    figures = [figure(1, params={"kind": k, "side": side}) for k in ("z", "a") for side in "xy"]
    found = series(Plot("p", "P", "cost", x="kind", lines="side", bars=True), result(*figures))
    across = {name: [f.params["kind"] for f in group] for name, group in found.items()}
    assert across == {"x": ["z", "a"], "y": ["z", "a"]}


def test_bars_keep_their_order_and_what_is_asked_for() -> None:
    figures = [figure(1, params={"kind": k, "mode": m}) for k in ("z", "a") for m in ("x", "y")]
    plot = Plot("p", "P", "cost", x="kind", where={"mode": "x"})
    assert [f.params["kind"] for f in series(plot, result(*figures))[""]] == ["z", "a"]


def test_the_cpu_has_its_family_and_model() -> None:
    text = (
        "processor\t: 0\ncpu family\t: 26\nmodel\t\t: 2\nmodel name\t: AMD EPYC\n\nprocessor\t: 1\n"
    )
    assert cpu_model(text) == "AMD EPYC (family 26, model 2)"
    assert cpu_model("model name: Thing\n") == "Thing"
