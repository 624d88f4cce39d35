"""The plotting style: panels, and axes that become logarithmic when the data are wide."""

from pathlib import Path

from PIL import Image

from common.plotting import COLOURS, NAMES, PALETTE, label, log_if_wide, panels, save, shade, single


def test_panels_beyond_the_titles_are_hidden() -> None:
    _, axes = panels(2, 2, ["a", "b", "c"])
    assert [one.get_visible() for one in axes] == [True, True, True, False]
    assert [one.get_title("left") for one in axes[:3]] == ["a", "b", "c"]


def test_label_adds_a_legend_only_where_something_is_named() -> None:
    _, axes = single("x", "y")
    assert axes.get_legend() is None and (axes.get_xlabel(), axes.get_ylabel()) == ("x", "y")
    axes.plot([0, 1], label="named")
    label(axes, "x", "y", legend=False)
    assert axes.get_legend() is None
    label(axes, "x", "y")
    assert [text.get_text() for text in axes.get_legend().get_texts()] == ["named"]


def test_log_if_wide_changes_the_scale_beyond_a_factor_of_five() -> None:
    for top, scale in ((4.9, "linear"), (5.1, "log")):
        _, axes = single("x", "y")
        axes.plot([1.0, top])
        log_if_wide(axes)
        assert axes.get_yscale() == scale


def test_palette_and_shades_are_distinct() -> None:
    assert len(set(PALETTE)) == len(PALETTE)
    assert len({shade(k, 5) for k in range(5)}) == 5 and NAMES.keys() <= COLOURS.keys()


def test_saved_figure_is_small_and_has_few_colours(tmp_path: Path) -> None:
    figure, axes = panels(2, 2, ["a", "b", "c"])
    for one in axes[:3]:
        for k in range(30):
            one.plot([0, k], color=shade(k, 30))
    save(figure, tmp_path / "a.png")
    with Image.open(tmp_path / "a.png") as image:
        assert image.size == (920, 680) and len(image.convert("RGB").getcolors()) <= 128
    assert (tmp_path / "a.png").stat().st_size < 150_000
