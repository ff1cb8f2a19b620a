"""The report: one page that needs nothing, whose tables say what was measured; its script in a real browser."""

from __future__ import annotations

import json
import math
import os
import re
import shutil
import subprocess
from html.parser import HTMLParser
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from click.testing import CliRunner
from safetensors.numpy import save_file

import qerror as qe
from qerror.checkpoints.planning import Point, plan
from qerror.checkpoints.planning.errors import FormatError, TensorErrors
from qerror.checkpoints.planning.storage import stored_bits
from qerror.checkpoints.reporting import report
from qerror.checkpoints.reporting.chart import chart
from qerror.checkpoints.reporting.colors import ink_on, palette
from qerror.checkpoints.reporting.content import Content, further_bit, heat_map, place
from qerror.checkpoints.reporting.page import page
from qerror.checkpoints.reporting.profiles import CLIPS, Profile, profile
from qerror.cli.commands import qerror_command
from qerror.files.elements import TensorInfo

FORMATS = ["int4_g32", "nvfp4", "int8:axis=0", "bf16"]
VOID = {"meta", "input", "wbr"}


class Page(HTMLParser):
    """Tags that close in order, tables as rows of texts, and all attributes."""

    def __init__(self, text: str) -> None:
        super().__init__()
        self.open: list[str] = []
        self.rows: list[list[str]] = []
        self.tables: dict[str, list[list[str]]] = {}
        self.attributes: list[tuple[str, str | None]] = []
        self.words: list[str] = []
        self.feed(text)
        self.close()
        assert self.open == []

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.attributes += attrs
        if tag not in VOID:
            self.open.append(tag)
        if tag == "table":
            self.rows = self.tables.setdefault(dict(attrs).get("id") or f"table {len(self.tables)}", [])
        elif tag == "tr":
            self.rows.append([])
        elif tag in ("td", "th"):
            self.rows[-1].append("")

    def handle_endtag(self, tag: str) -> None:
        assert self.open.pop() == tag

    def handle_startendtag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.attributes += attrs

    def handle_data(self, data: str) -> None:
        if "td" in self.open or "th" in self.open:
            self.rows[-1][-1] += data
        if "script" not in self.open and "style" not in self.open:
            self.words.append(data)


def model(folder: Path) -> Path:
    rng = np.random.default_rng(1)
    arrays = {
        f"layers.{layer}.{name}.weight": (rng.standard_t(4, (16, 64)) * (1 + layer)).astype(np.float32)
        for layer in (0, 1, 2, 10)
        for name in ("q", "mlp.up")
    }
    arrays["head.weight"] = rng.normal(size=(8, 64)).astype(np.float32)
    arrays["<script>alert(1)</script>"] = rng.normal(size=(4, 64)).astype(np.float32)
    arrays["norm.weight"] = np.ones(64, np.float32)
    save_file(arrays, folder / "model.safetensors")
    return folder / "model.safetensors"


def made(folder: Path, **options: Any) -> str:
    report(model(folder), folder / "report.html", **options)
    return (folder / "report.html").read_text(encoding="utf-8")


def test_the_page_asks_nothing_of_anybody(tmp_path: Path) -> None:
    text = made(tmp_path, formats=FORMATS)
    found = Page(text)
    assert not [value for name, value in found.attributes if name in ("src", "href", "srcset", "action")]
    # The namespace of SVG is a name, no place.
    assert set(re.findall(r"https?://[^\s\"')]+", text)) == {"http://www.w3.org/2000/svg"}
    assert "@import" not in text
    assert not re.search(r"url\(|fetch\(|XMLHttpRequest|import\(", text)
    assert "default-src 'none'" in text


def test_names_are_text(tmp_path: Path) -> None:
    text = made(tmp_path, formats=["int4_g32"])
    assert "<script>alert" not in text
    assert text.count("</script>") == 2
    assert any("<script>alert(1)</script>" in row[0] for row in Page(text).tables["tensors"])


def test_tables_say_what_was_measured(tmp_path: Path) -> None:
    where = model(tmp_path)
    told = plan(where, FORMATS, bits=6)
    found = Page(made(tmp_path, plan=told))
    head, *rows = found.tables["tensors"]
    at = {name: head.index(name) for name in [*FORMATS, "planned", "bits / value", "proof", "beyond 6 std, %"]}
    assert len(rows) == 10
    with qe.checkpoints.open(where) as checkpoint:
        for row in rows:
            x = checkpoint[row[0]]
            # Each fit once more, alone.
            assert row[at["int4_g32"]] == f"{qe.fit(x, 'int4_g32').total.sqnr_db:.2f}"
            assert row[at["nvfp4"]] == f"{qe.fit(x, 'nvfp4').total.sqnr_db:.2f}"
            assert row[at["int8:axis=0"]] == f"{qe.fit(x, 'int8', axis=0).total.sqnr_db:.2f}"
            assert row[at["planned"]] == told.tensors[row[0]].format
            assert row[at["bits / value"]] == f"{told.tensors[row[0]].bits_per_value:.4f}"
            beyond = np.mean(np.abs(x - x.mean()) > 6 * x.std(dtype=np.float64))
            assert row[at["beyond 6 std, %"]] == f"{100 * beyond:.3f}"
    words = " ".join(found.words)
    assert "Proven: no other choice of these 4 formats" in words
    assert "Weight error is not accuracy" in words
    assert "1 tensors stay as they are" in words


def test_the_map_pools_what_shares_a_cell() -> None:
    def tensor(name: str, mse: float) -> TensorErrors:
        return TensorErrors(TensorInfo(name, (4, 32), "F32"), {"int4": FormatError(mse, 2 * mse, 1.0, 128.0)}, {})

    some = [tensor("l.0.experts.0.w", 0.1), tensor("l.0.experts.1.w", 0.3), tensor("l.1.experts.0.w", 0.01)]
    heat = heat_map(Content("m", ("int4",), some, {}, None, (), (), {}))
    assert (heat.layers, heat.modules) == (["0", "1"], ["experts.*.w"])
    (first,), (second,) = heat.views["SQNR of int4"]
    assert first == pytest.approx(-10 * math.log10(0.2))
    assert second == pytest.approx(20)
    assert heat.views["dB lost to minmax, int4"][0][0] == pytest.approx(10 * math.log10(2))
    head = tensor("head.weight", 0.5)
    with_head = heat_map(Content("m", ("int4",), [*some, head], {}, None, (), (), {}))
    assert (with_head.outside, with_head.views["SQNR of int4"][2]) == (["head"], [pytest.approx(10 * math.log10(2))])
    assert place("model.embed_tokens.weight") == (None, "model.embed_tokens")


def test_a_further_bit_is_a_slope_of_the_hull() -> None:
    info = TensorInfo("w", (64, 128), "F32")
    errors = {
        form: FormatError(mse, mse, 1.0, 1.0)
        for form, mse in [("int4_g128", 1e-2), ("int8:axis=0", 1e-4), ("bf16", 1e-6)]
    }
    bits = [stored_bits(info, form) / info.size for form in errors]
    assert further_bit(TensorErrors(info, errors, {}), "int4_g128") == pytest.approx(20 / (bits[1] - bits[0]))
    assert math.isnan(further_bit(TensorErrors(info, errors, {}), "bf16"))


def test_a_profile_is_what_fit_says(tmp_path: Path) -> None:
    where = model(tmp_path)
    with qe.checkpoints.open(where) as checkpoint:
        info = checkpoint.info("layers.1.q.weight")
        x = checkpoint[info.name].astype(np.float64)
        found = profile(checkpoint, info, "int4:axis=0", lambda name: float(np.abs(checkpoint[name]).max()))  # type: ignore[arg-type]
    best = qe.fit(x.astype(np.float32), "int4", axis=0)
    assert found.best == pytest.approx(float(best.total.mse), rel=1e-6)
    rows = 10 * np.log10(np.mean(x**2, axis=1) / best.error.mse[:, 0])
    assert found.worst == [(int(i), pytest.approx(rows[i], abs=1e-4)) for i in np.argsort(rows)[:5]]
    minmax = qe.fit(x.astype(np.float32), "int4", axis=0, rule="minmax")
    assert found.mse[np.flatnonzero(CLIPS == 1.0)[0]] == pytest.approx(float(minmax.total.mse), rel=1e-6)
    assert found.counts.sum() == x.size


def test_a_report_of_a_sketch_says_what_that_of_the_model_says(tmp_path: Path) -> None:
    """Of formats with one scale a tensor: the same table but for digits that bounds leave, without rows."""
    where, place = model(tmp_path), tmp_path / "sketch.safetensors"
    qe.checkpoints.scan(where).save(place)
    tables = []

    def told(source: Path, **options: Any) -> str:
        report(source, tmp_path / "r.html", **options)
        return (tmp_path / "r.html").read_text()

    for source in (where, place):
        text = told(source, formats=["int4", "nf4", "bf16"], include=["head*", "layers.0.q*"])
        tables.append([row[:8] for row in Page(text).tables["tensors"]])
        data = text.split('<script type="application/json" id="data">')[1].split("</script>")[0]
        drawn = json.loads(data)["profiles"]["head.weight"]
        assert (drawn["worst"] == []) == (source == place)
        assert sum(drawn["counts"]) == 512
    assert tables[0] == tables[1]
    assert "bounds within " in text
    assert "A sketch has one scale a tensor; int4_g128, nvfp4, int8:axis=0 need the model." in text
    assert "this plan" in told(place, plan=plan(place, ["int4", "nf4"], bits=6, include=["head*"]))
    save_file({"head.weight.scale": np.ones(1, np.float32)}, tmp_path / "scales.safetensors")
    with pytest.raises(ValueError, match="scales need the model, got a sketch"):
        told(place, formats=["int4"], scales=tmp_path / "scales.safetensors")


def test_scales_in_use_are_those_of_the_file(tmp_path: Path) -> None:
    """Of a file of scales four fifths of minmax, in one format by blocks and in one by rows."""
    where = model(tmp_path)
    scales, expected = {}, {}
    with qe.checkpoints.open(where) as checkpoint:
        for number, layer in enumerate((0, 1, 2, 10)):
            name = f"layers.{layer}.q.weight"
            x = checkpoint[name]
            layout = {"block_size": 32} if number % 2 else {"axis": 0}
            grid = "int4" if number % 2 else "int8"
            scale = 0.8 * qe.fit(x, grid, rule="minmax", **layout).scale
            scales[f"{name}.scale"] = scale.astype(np.float32)
            expected[name] = qe.evaluate(x, grid, scales[f"{name}.scale"], **layout).total.sqnr_db
    save_file(scales, tmp_path / "scales.safetensors")
    page_ = made(tmp_path, formats=["int4_g32", "int8:axis=0"], scales=tmp_path / "scales.safetensors")
    said = json.loads(re.search(r'id="data">(.*?)</script>', page_)[1])["profiles"]  # type: ignore[index]
    head, *rows = Page(page_).tables["tensors"]
    for row in rows:
        present = said[row[0]]["present"]
        if row[0] not in expected:
            assert (present, row[head.index("in use")]) == (None, "")
            continue
        assert row[head.index("in use")] == f"{expected[row[0]]:.2f}"
        assert present["ratio"] == pytest.approx([0.8] * 3, rel=1e-3)
    save_file({"layers.0.q.weight.scale": np.ones((3, 5), np.float32)}, tmp_path / "scales.safetensors")
    with pytest.raises(ValueError, match=r"has scales of shape \(3, 5\), which no format of the report has"):
        made(tmp_path, formats=["int4_g32"], scales=tmp_path / "scales.safetensors")
    with pytest.raises(ValueError, match=r"has no NAME\.scale of any tensor"):
        made(tmp_path, formats=["int4_g32"], scales=where)


@pytest.mark.parametrize(("form", "grid"), [("int4_g32", "int4_g32"), ("e4m3fn:axis=0", "e4m3fn:axis=0")])
def test_scales_in_use_are_those_of_a_quantized_checkpoint(form: str, grid: str, tmp_path: Path) -> None:
    where = model(tmp_path)
    qe.checkpoints.export(where, tmp_path / "q", format=form, rule="minmax", include=["layers.*"])
    made_of = {"against": where, "include": ["layers.*"]}
    report(tmp_path / "q", tmp_path / "r.html", formats=[form, "nvfp4"], **made_of)  # type: ignore[arg-type]
    text = (tmp_path / "r.html").read_text()
    found = Page(text)
    stored = {each.info.name: each for each in qe.checkpoints.evaluate(tmp_path / "q", where)}
    head, *rows = found.tables["tensors"]
    assert len(rows) == 8
    for row in rows:
        own = stored[row[0]]
        assert row[head.index("in use")] == f"{10 * math.log10(own.power / own.mse['stored']):.2f}"
    said = json.loads(re.search(r'id="data">(.*?)</script>', text)[1])["profiles"]  # type: ignore[index]
    # Scales are rounded to bfloat16, of float32 values: by 2^-9 at most.
    assert all(abs(each["present"]["ratio"][1] - 1) < 2**-8 for each in said.values())
    assert {each["format"] for each in said.values()} == {grid}
    power, now = (
        math.fsum(v(each) for each in stored.values()) for v in (lambda e: e.power, lambda e: e.mse["stored"])
    )
    assert f"reach {10 * math.log10(power / now):.2f} dB on 8 tensors" in " ".join(found.words)
    # Without a list of formats that of the checkpoint is the first.
    report(tmp_path / "q", tmp_path / "r.html", **made_of)  # type: ignore[arg-type]
    assert Page((tmp_path / "r.html").read_text()).tables["tensors"][0][5] == form
    with pytest.raises(ValueError, match="has no quantized weights to hold against others"):
        report(where, tmp_path / "r.html", against=where)


def test_marks_and_names_do_not_cover_each_other() -> None:
    points = [
        Point(0, 1.0, bits, db, f"format_{k}")
        for k, (bits, db) in enumerate([(4.25, 20), (4.26, 20.1), (4.27, 20), (8, 45)])
    ]
    text = chart(points, points, points[0])
    names = re.findall(r'uniform-name" x="([\d.]+)" y="([\d.]+)" text-anchor="(\w+)">(\w+)', text)
    assert len(names) == 4
    boxes = []
    for x, y, anchor, name in names:
        left = float(x) - (6 * len(name) if anchor == "end" else 0)
        boxes.append((left, left + 6 * len(name), float(y)))
    for k, (left, right, y) in enumerate(boxes):
        assert all(right < a or b < left or abs(y - c) > 10 for a, b, c in boxes[:k])
    assert chart([Point(0, 0.0, 4, math.inf)], [], None) == ""


def test_cells_can_be_read() -> None:
    """Contrast of at least 3 to 1 (WCAG) for each shade, and lightness that rises."""

    def light(color: str) -> float:
        channels = [int(color[k : k + 2], 16) / 255 for k in (1, 3, 5)]
        linear = [c / 12.92 if c <= 0.04045 else ((c + 0.055) / 1.055) ** 2.4 for c in channels]
        return 0.2126 * linear[0] + 0.7152 * linear[1] + 0.0722 * linear[2]

    lightness = [light(color) for color in palette()]
    assert lightness == sorted(lightness)
    for step, color in enumerate(palette()):
        ink = 0.0 if ink_on(step) == "#000" else 1.0
        high, low = max(ink, light(color)), min(ink, light(color))
        assert (high + 0.05) / (low + 0.05) >= 3, color


def test_300_tensors_in_12_formats_take_less_than_2_megabytes() -> None:
    forms = [f"int4_g{2**k}" for k in range(4, 16)]
    rng = np.random.default_rng(0)
    tensors, profiles = [], {}
    for number in range(300):
        name = f"model.layers.{number // 7}.self_attn.module_{number % 7}_proj.weight"
        errors = {form: FormatError(rng.uniform(), rng.uniform(1, 2), 3.0, 1.0) for form in forms}
        tensors.append(TensorErrors(TensorInfo(name, (4096, 4096), "BF16"), errors, {}, 0.3))
        worst = [(int(rng.integers(4096)), float(rng.uniform(10, 20))) for _ in range(5)]
        counts, mse = rng.integers(0, 10**5, 61), rng.uniform(size=CLIPS.size)
        profiles[name] = Profile(
            forms[0],
            128,
            4096,
            1.0,
            4.0,
            0.0,
            np.linspace(-10, 10, 62),
            counts,
            np.arange(-8.0, 8),
            mse,
            0.1,
            0.2,
            3.0,
            worst,
        )
    front = [Point(k, 1.0 / k, 2 + k / 300, 10 + k / 100) for k in range(1, 3000)]
    uniform = [Point(k, 1.0, 4 + k, 20.0 + k, form) for k, form in enumerate(forms)]
    text = page(Content("m", tuple(forms), tensors, profiles, None, front, uniform, {}))
    assert len(text.encode()) < 2e6
    Page(text)


def test_the_command_and_its_refusals(tmp_path: Path) -> None:
    where = model(tmp_path)
    run = CliRunner().invoke
    planned = run(
        qerror_command, ["plan", str(where), "--formats", *FORMATS, "--bits", "7", "-o", str(tmp_path / "p.json")]
    )
    assert planned.exit_code == 0, planned.output
    args = ["report", str(where), "--plan", str(tmp_path / "p.json"), "-o", str(tmp_path / "r.html")]
    before = (tmp_path / "p.errors.json").stat().st_mtime_ns
    assert run(qerror_command, args).exit_code == 0
    # All errors were known from the plan.
    assert (tmp_path / "p.errors.json").stat().st_mtime_ns == before
    assert "this plan" in (tmp_path / "r.html").read_text()
    assert "-o must end in .html" in run(qerror_command, [*args[:-1], "r.txt"]).output
    assert "must be left out with a plan" in run(qerror_command, [*args, "--formats", "int4"]).output
    other = tmp_path / "other.safetensors"
    save_file({"w": np.ones((2, 2), np.float32)}, other)
    assert "plan must be of this model" in run(qerror_command, ["report", str(other), *args[2:]]).output


# -- in a browser ------------------------------------------------------------------------------------------------------

BROWSER = shutil.which("chromium") or shutil.which("chromium-browser")
needs_browser = pytest.mark.skipif(BROWSER is None, reason="needs Chromium: apt-get install chromium")
# What a person would do, and what the page then shows.
ACTIONS = """
const said = {};
const head = [...document.querySelectorAll("#tensors thead button")];
const names = () => all().filter((row) => !row.hidden).map((row) => row.dataset.name);
const all = () => [...document.querySelectorAll("#tensors tbody tr:not(.drawn)")];
const column = (k) => all().map((row) => row.cells[k].textContent);
const at = head.findIndex((button) => button.textContent === "nvfp4");
said.first = names();
head[at].click(); said.up = column(at);
head[at].click(); said.down = column(at);
head[0].click(); said.named = names();
const filter = document.getElementById("filter");
filter.value = "mlp LAYERS"; filter.dispatchEvent(new Event("input")); said.filtered = names();
said.count = document.getElementById("count").textContent;
filter.value = ""; filter.dispatchEvent(new Event("input"));
const view = document.getElementById("view");
said.map = [];
for (const option of view.options) {
  view.value = option.value; view.dispatchEvent(new Event("change"));
  said.map.push([option.value, [...document.querySelectorAll("#heat td")].map((cell) => cell.textContent)]);
}
said.drawings = [];
said.present = [];
for (const row of all()) {
  row.click();
  said.drawings.push(document.querySelectorAll("#detail svg").length);
  const inside = (each) => document.querySelector("#detail " + each);
  const [mark, ring, line] = ["path.present", ".ring", "line.present"].map(inside);
  if (mark) {
    const box = mark.getBBox();
    said.present.push([box.x + box.width / 2 - ring.cx.baseVal.value, line.x2.baseVal.value - line.x1.baseVal.value]);
  }
}
all()[0].dispatchEvent(new KeyboardEvent("keydown", {key: "Enter"}));
said.titles = [...document.querySelectorAll("#detail svg text")].map((each) => each.textContent);
const wrong = (each) => /NaN|Infinity|undefined/.test(each.outerHTML);
said.wrong = [...document.querySelectorAll("#detail svg *")].filter(wrong).length;
said.printed = [...document.querySelectorAll(".controls")].map((each) => getComputedStyle(each).display);
const out = document.createElement("pre");
out.id = "said";
out.textContent = JSON.stringify(said);
document.body.append(out);
"""


def browse(path: Path, *options: str) -> tuple[str, str]:
    command = [str(BROWSER), "--headless", "--no-sandbox", "--disable-gpu", "--enable-logging=stderr", "--log-level=0"]
    env = {**os.environ, "HOME": str(path.parent)}
    done = subprocess.run(
        [*command, *options, path.as_uri()], capture_output=True, text=True, timeout=120, env=env, check=True
    )
    return done.stdout, "\n".join(line for line in done.stderr.splitlines() if "CONSOLE" in line)


@needs_browser
def test_sorting_filtering_switching_and_drawing_in_chromium(tmp_path: Path) -> None:
    where = model(tmp_path)
    told = plan(where, FORMATS, bits=6)
    with qe.checkpoints.open(where) as checkpoint:
        minmax = qe.fit(checkpoint["layers.1.q.weight"], "int4_g32", rule="minmax").scale
    save_file({"layers.1.q.weight.scale": (0.5 * minmax).astype(np.float32)}, tmp_path / "scales.safetensors")
    text = made(tmp_path, plan=told, scales=tmp_path / "scales.safetensors")
    driven = tmp_path / "driven.html"
    driven.write_text(
        text.replace("narrow();\n</script>", f"narrow();\n(() => {{{ACTIONS}}})();\n</script>"), encoding="utf-8"
    )
    out, console = browse(driven, "--dump-dom")
    assert console == ""
    match = re.search(r'<pre id="said">(.*?)</pre>', out, re.DOTALL)
    assert match is not None
    said = json.loads(match[1].replace("&lt;", "<").replace("&gt;", ">").replace("&amp;", "&"))
    values = list(map(float, said["up"]))
    assert values == sorted(values)
    assert list(map(float, said["down"])) == sorted(values, reverse=True)
    # Layer 10 comes after layer 2.
    layers = [name for name in said["named"] if name.endswith("q.weight")]
    assert layers == [f"layers.{k}.q.weight" for k in (0, 1, 2, 10)]
    assert sorted(said["filtered"]) == sorted(f"layers.{k}.mlp.up.weight" for k in (0, 1, 2, 10))
    assert said["count"] == "4 of 10 tensors"
    assert [name for name, _ in said["map"]][:2] == ["SQNR as planned", "SQNR of int4_g32"]
    assert len({tuple(cells) for _, cells in said["map"]}) == len(said["map"])
    assert set(said["drawings"]) == {2}
    assert said["wrong"] == 0
    # Half of minmax, in all groups alike: as far to the left as half of the axis from 0 would be.
    ((away, wide),) = said["present"]
    assert away == pytest.approx(-0.5 * (460 - 76 - 14) / (CLIPS[-1] - CLIPS[0]), rel=1e-3)
    assert wide == pytest.approx(0, abs=0.01)
    assert {"value over its scale (lines: levels)", "SQNR, dB"} <= set(said["titles"])
    assert said["printed"] == ["flex", "flex"]


@needs_browser
def test_without_script_nothing_invites_to_click_and_print_has_no_controls(tmp_path: Path) -> None:
    text = made(tmp_path, formats=FORMATS)
    page = tmp_path / "report.html"
    _, console = browse(page, f"--print-to-pdf={tmp_path / 'report.pdf'}", "--no-pdf-header-footer")
    assert console == ""
    assert (tmp_path / "report.pdf").read_bytes().startswith(b"%PDF")
    still = tmp_path / "still.html"
    probe = (
        "document.title = [...document.querySelectorAll('.js')].map((each) => getComputedStyle(each).display).join()"
    )
    still.write_text(re.sub(r'<script>\n"use strict".*?</script>', f"<script>{probe}</script>", text, flags=re.DOTALL))
    out, _ = browse(still, "--dump-dom")
    assert "<title>none,none</title>" in out
