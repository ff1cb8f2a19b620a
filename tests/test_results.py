"""What answers look like: every line of a repr is an attribute, notebooks show tables, tables are sequences."""

import dataclasses
import importlib.util
import inspect
import operator
import pydoc
import sys
from html.parser import HTMLParser

import numpy as np
import pytest

import qerror as qe


def answers():
    x = np.random.default_rng(0).standard_normal((4, 256))
    gaussian = qe.Gaussian()
    return [
        qe.quantization_error(gaussian, "int4", 0.3),
        qe.quantization_error(gaussian, "mxfp4"),
        qe.octave_average(gaussian, "mxfp4"),
        qe.optimal_scale(gaussian, "int4"),
        qe.optimal_scale(gaussian, "nf4_g64"),
        qe.optimal_scale(gaussian, "mxfp4", free="constant"),
        qe.fit(x, "int4", axis=0),
        qe.fit(x, "nvfp4"),
        qe.fit(x, "uint4", zero_point="integer"),
        qe.quantize(x, "nvfp4"),
        qe.simulate(gaussian, "int4", 0.3, n=10_000, rng=1),
        qe.rate_distortion(gaussian, bits=2),
    ]


def test_every_line_is_an_attribute():
    for answer in answers():
        for line in repr(answer).splitlines()[1:]:
            operator.attrgetter(line.split()[0])(answer)


class Cells(HTMLParser):
    def __init__(self, text):
        super().__init__()
        self.texts, self.open = [], []
        self.feed(text)
        assert not self.open

    def handle_starttag(self, tag, attrs):
        self.open.append(tag)

    def handle_endtag(self, tag):
        assert self.open.pop() == tag

    def handle_data(self, data):
        self.texts.append(data)


def test_notebooks_show_the_same_as_a_table():
    for answer in answers():
        words = [word for line in repr(answer).splitlines()[1:] for word in line.split(maxsplit=1)]
        texts = Cells(answer._repr_html_()).texts
        assert texts[0] == type(answer).__name__
        assert texts[1:] == words


def test_tables_are_sequences_of_rows():
    table = qe.load_table()
    assert len(table) == len(table.rows) == len(list(table))
    texts = Cells(table._repr_html_()).texts
    assert f"{len(table)} rows" in texts[0]
    assert f"{table.rows[0].mse:.10g}" in texts


def test_to_frame(monkeypatch):
    table = qe.load_table()
    monkeypatch.setitem(sys.modules, "pandas", None)
    with pytest.raises(ImportError, match="pip install pandas"):
        table.to_frame()

    class Pandas:
        DataFrame = staticmethod(list)

    monkeypatch.setitem(sys.modules, "pandas", Pandas)
    first = table.to_frame()[0]
    assert first == {**dataclasses.asdict(table.rows[0]), "sqnr_db": table.rows[0].sqnr_db}


def test_help_works_without_torch(monkeypatch):
    found = importlib.util.find_spec
    monkeypatch.setattr(importlib.util, "find_spec", lambda name: None if name == "torch" else found(name))
    assert "training" not in dir(qe)
    assert {name for name, _ in inspect.getmembers(qe)} >= {"fit", "Gaussian", "testing"}
    assert "optimal_scale" in pydoc.render_doc(qe)
