"""The commands `qerror fit` and `collect`: scales of a whole checkpoint, and what each rule loses on it."""

import contextlib
import math
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import click

import qerror as qe

from .._check import plain, shown
from ..checkpoints.against import evaluate, with_stored
from ..checkpoints.arguments import size_of
from ..checkpoints.collecting import collect as collect_parts
from ..checkpoints.engines import some_executor
from ..checkpoints.fitting import QUANTIZED, TensorFit, fit_tensors, stored_size
from ..checkpoints.folder import Folder
from ..checkpoints.pieces import DEFAULT_MEMORY
from ..checkpoints.recipe import FUSED, Recipe, split_format, with_fused
from ..checkpoints.running import Shard, run
from ..checkpoints.tasks import Job, Work, absolute, model_name, open_work
from ..files.checkpoint import open_checkpoint
from ..files.scales import check_apart, check_output, open_scales, read_scales
from ..grids.block_formats import as_format
from ..grids.scale_formats import SCALE_FORMATS, scale_name
from ..rules import RULES
from ..rules.block_rules import NAMES
from .fits import say_dequantized, show, show_against
from .group import OptionalWords
from .options import examples, shift_option
from .render import byte_progress, print_json, say
from .words import FORMATS, RULE_NAMES, globs, several

_OPTIONS = ("axis", "block_size", "block_axis", "shift", "zero_point", "scale_format")


def parse_memory(ctx: click.Context, param: click.Parameter, value: str | None) -> float | None:
    """Read 500MB, 1.5 GB or a number of bytes."""
    return None if value is None else size_of(param.opts[0], value)


@click.command(
    cls=OptionalWords,
    epilog=examples(
        "qerror fit model.safetensors --grid int4 --axis 0",
        "qerror fit model.safetensors --grid int4 --block 32 --rule minmax --rule octav --rule optimal",
        "qerror fit model.safetensors --grid nvfp4 --include '*.weight' -o scales.safetensors",
        "qerror fit MODEL_DIR --grid int4_g128 -o RUN    (again: it goes on)",
        "qerror fit MODEL_DIR --grid int4_g128 -o RUN --shard 3/8; qerror collect RUN",
        "qerror fit QUANTIZED_DIR --against MODEL_DIR    (in the formats that QUANTIZED_DIR has)",
    ),
)
@click.argument("model", metavar="MODEL...", nargs=-1, required=True)
@several(
    *("--grid", "--grids", "grids"),
    kind=FORMATS,
    metavar="GRID",
    help="A format (int4, e2m1, ...) or block format (mxfp4, nvfp4). Several are fitted in one reading.",
)
@click.option("--axis", metavar="N", type=int, help="The axis that keeps its own scales: 0 for output channels.")
@click.option("--block", "block_size", metavar="N", type=click.IntRange(min=1), help="Elements that share a scale.")
@click.option("--block-axis", metavar="N", type=int, default=-1, show_default=True, help="The axis cut into blocks.")
@several(
    *("--rule", "--rules", "rules"),
    kind=RULE_NAMES,
    metavar="RULE",
    help=f"One or more of {', '.join((*RULES, *NAMES))}, with options as in percentile:p=99.9.  [default: optimal]",
)
@shift_option
@click.option(
    "--zero-point",
    is_flag=False,
    flag_value="integer",
    type=click.Choice(["integer", "storable"]),
    help="Choose an integer zero point with each scale, or one of the codes; 'integer' may be left out.",
)
@click.option(
    "--scale-format",
    metavar="FORMAT",
    callback=lambda ctx, param, value: None if value is None else scale_name(value),
    help=f"What scales are stored as: {', '.join(SCALE_FORMATS)}.",
)
@click.option(
    "--scales", metavar="FILE", type=click.Path(path_type=Path), help="NAME.scale to compare with, as 'given'."
)
@click.option(
    "--against",
    metavar="ORIGINAL",
    help="What a quantized MODEL was made of: scales are fitted to it and compared with MODEL's own, as 'stored'.",
)
@globs("--include", metavar="GLOB", help="Only tensors whose names match.")
@globs("--exclude", metavar="GLOB", help="No tensors whose names match.")
@click.option("--include-1d", is_flag=True, help="Also biases, norms and other tensors of one dimension.")
@click.option(
    "--weights", metavar="FILE", help="Importance of the columns: NAME or NAME.weights of each tensor, or an imatrix."
)
@globs(
    "--together",
    metavar="[GLOB]",
    is_flag=False,
    flag_value=FUSED,
    help="Tensors that share a tensor scale, as '*.{q,k,v}_proj.weight'; alone: those that runtimes fuse.",
)
@click.option(
    "-o", "--output", metavar="PATH", help="Write a .safetensors or .json file, or a folder whose work can be resumed."
)
@click.option("--codes", is_flag=True, help="Write the quantized tensors too, as NAME.codes.")
@click.option("--shard", metavar="i/n", help="Begin with this part of the work; others do the rest. Needs a folder.")
@click.option("--engine", metavar="ENGINE", help="dask:ADDRESS runs the work on a Dask cluster. Needs a folder.")
@click.option(
    "--memory",
    metavar="SIZE",
    callback=parse_memory,
    help="What a process may use; the results do not depend on it.  [default: 1GB with -o DIR]",
)
@click.option("--json", "as_json", is_flag=True, help="Print JSON with all digits instead of a table.")
def fit(
    model: tuple[str, ...],
    grids: tuple[str, ...],
    rules: tuple[str, ...],
    scales: Path | None,
    against: str | None,
    include: tuple[str, ...],
    exclude: tuple[str, ...],
    include_1d: bool,
    weights: str | None,
    together: tuple[str, ...],
    output: str | None,
    codes: bool,
    shard: str | None,
    engine: str | None,
    memory: float | None,
    as_json: bool,
    **layout: Any,
) -> int:
    """Fit scales to the tensors of MODEL, however large it is.

    MODEL is a file, several, a folder with an index or shards, a pattern, or a URL. Without --axis and --block a tensor
    has one scale. "lost dB" is what a rule's mean squared error lies above that of the best scales with all else the
    same. -o writes NAME.scale and NAME.shift for every tensor, and NAME.zero_point and NAME.tensor_scale where there
    are such. With a tensor that cannot be fitted (NaN), or that is quantized in a way that cannot be read, the rest
    goes on and the exit status is 1.

    Of a quantized MODEL the values that its codes and scales stand for are fitted. With --against ORIGINAL the values
    of ORIGINAL are, and compared with what MODEL stores: "stored" are its codes and scales, "nearest" the same scales
    with each value rounded to the nearest level. --grid may then be left out: each weight in the format that it has.
    """
    _check_models(model)
    options, several = {key: value for key, value in layout.items() if value is not None}, with_fused(together)
    if against is not None:
        _check_against(shard=shard, engine=engine, scales=scales)
    if not grids:
        own = {key: value for key, value in options.items() if key not in ("block_axis", "shift")}
        return _own_formats(
            model, against, rules, include, exclude, output, memory or math.inf, as_json,
            weights=weights, together=together or None, codes=codes or None, include_1d=include_1d or None, **own,
        )  # fmt: skip
    recipe = Recipe(tuple(dict.fromkeys(grids)), tuple(dict.fromkeys(rules or ("optimal",))), options, codes, several)
    folder = _folder(output, shard, engine)
    room = memory or (math.inf if folder is None else DEFAULT_MEMORY)
    place = absolute(model[0] if len(model) == 1 else model)
    if against is not None and folder is not None:
        raise ValueError("--against needs a file to write to: -o FILE.safetensors")
    values = place if against is None else absolute(against)
    job = Job(values, recipe, include, exclude, include_1d, weights and str(absolute(weights)), room)
    _check(recipe, options, output if folder is None else None, scales, folder)
    if folder is None:
        return _in_memory(job, output, scales, as_json, None if against is None else place)
    with some_executor(engine) as executor, byte_progress() as progress:
        run(job, folder, shard=Shard.parse(shard), executor=executor, progress=progress)
    return _collect(folder, as_json) if shard is None else _all_there(folder, shard, as_json)


def _check_models(models: tuple[str, ...]) -> None:
    """A format behind --grid's own counts as a model: say so, rather than that there is no such file."""
    for text in models:
        with contextlib.suppress(ValueError):
            if not Path(text).exists() and as_format(split_format(text)[0]):
                raise click.UsageError(f"{plain(text)} is a format, no MODEL; each has its own option: --grid {text}")


def _all_there(folder: Path, shard: str, as_json: bool) -> int:
    """What is said where other processes share the work."""
    if as_json:
        print_json("fit", [], shard=shard, folder=str(folder), parts=len(Folder(folder).plan()["tasks"]), complete=True)
    else:
        say(f"all parts are there; qerror collect {plain(str(folder))} puts them together")
    return 0


def _check_against(**given: Any) -> None:
    """Refuse options that have no meaning with --against."""
    for name, value in given.items():
        if value is not None:
            raise ValueError(f"--{name.replace('_', '-')} must be left out here, got {shown(value)}")


def _own_formats(
    model: tuple[str, ...],
    against: str | None,
    rules: tuple[str, ...],
    include: tuple[str, ...],
    exclude: tuple[str, ...],
    output: str | None,
    memory: float,
    as_json: bool,
    **given: Any,
) -> int:
    """Each quantized weight in the format that it has, on the values of the original."""
    if against is None:
        raise ValueError(
            "Missing option '--grid': a format as in --grid int4, or with --against ORIGINAL that of MODEL itself"
        )
    _check_against(**given)
    place = model[0] if len(model) == 1 else model
    name = model_name(absolute(place))
    with contextlib.ExitStack() as stack:
        sink = None
        if output is not None:
            check_output(Path(output))
            for each in (place, against):
                with open_checkpoint(each) as opened:
                    check_apart(Path(output), opened.files)
            about = {"made_by": f"qerror {qe.__version__}", "source": name, "rule": (*rules, "optimal")[0]}
            sink = stack.enter_context(open_scales(output, about))
        heard = stack.enter_context(byte_progress())
        done = evaluate(
            place, against, rule=rules, include=include, exclude=exclude, sink=sink, memory=memory, progress=heard
        )
    status = show_against(name, model_name(absolute(against)), done, as_json, "fit")
    if output is not None and not as_json:
        say(f"scales of {sum(1 for fit in done if fit.mse)} tensors written to {plain(output)}")
    return status


def _in_memory(job: Job, output: str | None, scales: Path | None, as_json: bool, quantized: Any = None) -> int:
    """One tensor after the other, in this process, for a table or for one file."""
    recipe, name = job.recipe, model_name(job.model)
    given = None if scales is None else read_scales(scales)
    with contextlib.ExitStack() as stack:
        work = open_work(job)
        stack.callback(work.checkpoint.close)
        _check_given(given, scales, work)
        sink = None
        if output is not None:
            check_apart(Path(output), work.checkpoint.files)
            about = {"made_by": f"qerror {qe.__version__}", "source": name}
            about |= {"grid": recipe.grids[0], "rule": recipe.rules[0]}
            about |= {key: str(value) for key, value in recipe.options.items()}
            sink = stack.enter_context(open_scales(output, about))
        total = sum(stored_size(info) for info, reason in work.selected if not reason)
        heard = stack.enter_context(byte_progress())
        done = list(
            fit_tensors(
                *(work.checkpoint, work.selected, recipe.grids, recipe.rules),
                given=given,
                weigh=work.weigh,
                sink=sink,
                memory=job.memory,
                codes=recipe.codes,
                together=recipe.together,
                progress=lambda tensor, size: heard(tensor, size, total),
                **recipe.options,
            )
        )
        if quantized is not None:
            done = with_stored(done, quantized, job.model, memory=job.memory)
            name = f"{model_name(quantized)} against {name}"
    show(name, recipe.grids, done, work.checkpoint.skipped, as_json, recipe.options, together=recipe.together)
    if not as_json and quantized is None:
        say_dequantized(fit.info.dtype for fit in done if fit.mse)
    if output is not None and not as_json:
        say(f"scales of {sum(1 for fit in done if fit.mse)} tensors written to {plain(output)}")
    return _status(done)


def _check_given(given: Mapping[str, Any] | None, scales: Path | None, work: Work) -> None:
    if given is not None and not any(f"{name}.scale" in given for name in work.names):
        such = shown(work.selected[0][0].name)
        raise ValueError(f"--scales {shown(scales)} has no NAME.scale of any tensor to fit, such as {such}")


@click.command(epilog=examples("qerror collect RUN"))
@click.argument("folder", metavar="DIR", type=click.Path(path_type=Path))
@click.option("--json", "as_json", is_flag=True, help="Print JSON with all digits instead of a table.")
def collect(folder: Path, as_json: bool) -> int:
    """Put the parts together that `qerror fit -o DIR --shard i/n` made.

    Writes scales-*.safetensors with an index, in a folder of its own for each of several formats, and report.json.
    """
    return _collect(folder, as_json)


def _collect(folder: Path, as_json: bool) -> int:
    done, plan = collect_parts(folder)
    asked = plan["asked"]["recipe"]
    model = plan["model"] if isinstance(plan["model"], str) else tuple(plan["model"])
    name, together = model_name(model), asked["together"]
    show(name, asked["grids"], done, plan["no_tensors"], as_json, asked["options"], together=together)
    if not as_json:
        count = len({fit.info.name for fit in done if fit.mse})
        say(f"scales of {count} tensors written to {plain(str(folder))}")
    return _status(done)


def _status(done: list[TensorFit]) -> int:
    return 1 if any(fit.failed or fit.skipped == QUANTIZED for fit in done) else 0


def _folder(output: str | None, shard: str | None, engine: str | None) -> Path | None:
    """The folder of the run, if it has one: what ends like a file is a file unless it is there as a folder."""
    if output is None or (Path(output).suffix and not output.endswith("/") and not Path(output).is_dir()):
        if shard is not None or engine is not None:
            word = "--shard" if shard is not None else "--engine"
            raise ValueError(f"{word} needs a folder in which the parts are shared: -o DIR/")
        return None
    return Path(output)


def _check(
    recipe: Recipe, options: dict[str, Any], output: str | None, scales: Path | None, folder: Path | None
) -> None:
    """Refuse what no tensor could change, before the first one is read."""
    if output is not None:
        check_output(Path(output))
        if len(recipe.rules) > 1 or len(recipe.grids) > 1 or scales is not None:
            raise ValueError("-o writes the scales of one rule, got several columns; leave out -o or give one --rule")
    elif folder is not None:
        if scales is not None:
            raise ValueError("--scales compares in a table; leave out -o")
    elif recipe.codes:
        raise ValueError("--codes needs a file to write to: -o FILE")
    if "axis" in options and "block_size" in options:
        raise ValueError(f"give --axis or --block, not both; got {options['axis']} and {options['block_size']}")
    recipe.check()
