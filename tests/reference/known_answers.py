"""Published and otherwise known answers, each with its source; tests/test_known_answers.py asks for them.

An expected number is text: it is right to `units` in its last place. How far a source may be trusted is in its name:

closed form   follows in a line of algebra
computed      float64 closed forms of the authors, some solved again in mpmath; not a publication
seen          read in the text or code of the project or paper
second-hand   attributed to a paper by another source
memory        recalled, not read: the tolerance is wide, and another row says the same with more digits
"""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Any

CLOSED_FORM = "closed form"
COMPUTED = "computed: float64 closed forms, key values again in mpmath"
MAX_SECOND_HAND = "Max 1960, Table II; second-hand: VecQ code and a MATLAB file"
MAX_MEMORY = "Max 1960, Table II; memory"
LAPLACE_SECOND_HAND = "uniform quantizers for a Laplace density; second-hand: a MATLAB file"
SAYOOD = "Sayood, Introduction to Data Compression, Table 9.3; memory"
STATQAT = "StatQAT, arXiv 2605.17745: its uniform and floating-point SNR formulas; roots computed"
QUANT_MP = "quant_mp (StatQAT's code), printed by it; its search is coarse"
ACIQ_NOTEBOOK = "ACIQ (arXiv 1810.05723) notebook; seen"
ACIQ_CONSTANTS = "ACIQ int_quantizer constants; seen"
QUEST = "QuEST OPTIMAL_GAUSSIAN_SCALES and notebook; seen"
LLOYD_MAX_SECOND_HAND = "Max 1960, Table I; second-hand"

Grid = str | tuple[Any, ...]  # a name, ("uniform", N): N levels of step 1 around 0, ("float", exponent, mantissa bits)


@dataclass(frozen=True)
class Optimum:
    """`what` (scale, clip, step, mse, sqnr_db, shift_over_scale) of the optimal scale."""

    density: str
    grid: Grid
    what: str
    expected: str
    source: str
    options: dict[str, Any] = field(default_factory=dict)
    units: float = 1.0


@dataclass(frozen=True)
class ErrorAt:
    """MSE of unit Gaussian rounding whose end level is at `clip`."""

    grid: Grid
    clip: str
    mse: str
    source: str
    units: float = 1.0


@dataclass(frozen=True)
class Codebook:
    """The Lloyd-Max codebook: MSE and, where known, its positive levels."""

    density: str
    n_levels: int
    mse: str
    source: str
    positive: tuple[str, ...] = ()
    units: float = 1.0


def _column(
    density: str, what: str, source: str, values: dict[Grid, str], units: float = 1.0, **options: Any
) -> list[Optimum]:
    return [Optimum(density, grid, what, value, source, options, units) for grid, value in values.items()]


def _uniform(first: int, values: str, step: int = 1) -> dict[Grid, str]:
    return {("uniform", first + step * i): value for i, value in enumerate(values.split())}


def _bits(kind: str, first: int, values: str) -> dict[Grid, str]:
    return {f"int{first + i}{kind}": value for i, value in enumerate(values.split())}


# ACIQ's model has steps of 2 alpha / 2^M: high-resolution rounding on 2^M + 1 levels that end at +-alpha.
def _aciq(first: int, values: str) -> dict[Grid, str]:
    return {("uniform", 2 ** (first + i) + 1): value for i, value in enumerate(values.split())}


SQRT_HALF = 0.5**0.5

SYMMETRIC_GAUSSIAN = [
    # 2 sqrt(2/pi) and 1 - 2/pi.
    *_column("gaussian", "step", CLOSED_FORM, {("uniform", 2): "1.5957691216057307"}),
    *_column("gaussian", "mse", CLOSED_FORM, {("uniform", 2): "0.3633802276324186569"}),
    *_column("gaussian", "step", MAX_SECOND_HAND, _uniform(2, "1.596 .9957 .7334 .5860 .4908 .4238 .3739 .3352", 2)),
    *_column("gaussian", "step", MAX_SECOND_HAND, _bits("_midrise", 5, ".1881 .1041 .0569 .0308")),
    *_column("gaussian", "mse", MAX_MEMORY, _uniform(
        2, ".3634 .1902 .1188 .08218 .06065 .04686 .03744 .03069 .02568 .02185 .01885 .01645 .01450 .01289 .01154")
        , units=2),
    *_column("gaussian", "mse", MAX_MEMORY, {("uniform", 32): ".00349", ("uniform", 36): ".00284"}),
    *_column("gaussian", "step", COMPUTED, _uniform(
        2, "1.595769121606 1.224006361925 .9956866859435063 .842986250805 .733432611194 .6507697039968386"
        " .5860194414434870 .533822208696 .490777987901 .454623151115 .423790465551 .397159198272 .373905875102"
        " .3534113155714074 .3352006121999727 .318903168 .304225369")),
    *_column("gaussian", "mse", COMPUTED, _uniform(
        2, ".363380227632419 .190174039247902 .1188460503840772 .0821776605968599 .0606565850250964 .0468599743888227"
        " .0374396593915235 .030695858955 .025687069418 .0218556534 .018853287867 .016452772534 .01450049157"
        " .0128893859107019 .0115428844313509 .01040498 .00943389694")),
    *_column("gaussian", "mse", COMPUTED, {
        ("uniform", 20): ".00787265194", ("uniform", 24): ".00575096269", ("uniform", 28): ".00440575037",
        "int5_midrise": ".00349521136150557", ("uniform", 36): ".00284807349", "int6_midrise": ".00104004540879193",
        "int7_midrise": ".000304332770824037", "int8_midrise": "8.76861857840938e-05"}),
    *_column("gaussian", "step", COMPUTED, {
        ("uniform", 20): ".278829832", ("uniform", 24): ".239570019", ("uniform", 28): ".210540252",
        "int5_midrise": ".1881387902799183", ("uniform", 36): ".170289986", "int6_midrise": ".1040630094420146",
        "int7_midrise": ".0568676723823584", "int8_midrise": ".0307623875823246"}),
    *_column("gaussian", "sqnr_db", COMPUTED, _bits(
        "_midrise", 2, "9.250152 14.266681 19.376857 24.565266 29.829477 35.166513 40.570688")),
]  # fmt: skip

SYMMETRIC_LAPLACE = [
    # sqrt 2 and 1/2; sqrt 2 and 1 - 2/e.
    *_column("laplace", "step", CLOSED_FORM, _uniform(2, "1.4142135623730950488 1.4142135623730950488")),
    *_column("laplace", "mse", CLOSED_FORM, _uniform(2, "0.5 0.26424111765711535681")),
    *_column("laplace", "step", LAPLACE_SECOND_HAND, _uniform(
        2, "1.414 1.0873 .8707 .7309 .6334 .5613 .5055 .4609", 2) | {"int5_midrise": ".2799"}),
    *_column("laplace", "step", COMPUTED, {
        "int2_midrise": "1.0873926893381312", "int3_midrise": ".7309331824703240", "int4_midrise": ".4609953643126601",
        "int5_midrise": ".2799885474053004", "int6_midrise": ".1656807249096606", "int7_midrise": ".0960989207190072",
        "int8_midrise": ".0548443382989423"}),
    *_column("laplace", "mse", COMPUTED, {
        "int2_midrise": ".1963022632537183", "int3_midrise": ".0717477962811151", "int4_midrise": ".0253509746153167",
        "int5_midrise": ".00871322068194450", "int6_midrise": ".00291343070854898",
        "int7_midrise": ".000948597005940192", "int8_midrise": ".000301420327036720"}),
]  # fmt: skip
SYMMETRIC_UNIFORM = [
    # N equal cells: step 2 sqrt(3) / N and MSE 1 / N^2.
    *_column("uniform", "step", CLOSED_FORM, {
        "binary": "1.7320508075688772", "ternary": "1.1547005383792515", "int4_midrise": "0.21650635094610966"}),
    *_column("uniform", "mse", CLOSED_FORM, {
        "binary": "0.25", "ternary": "0.11111111111111111", "int4_midrise": "0.00390625",
        "int8_midrise": "1.52587890625e-05"}),
]  # fmt: skip

INTEGERS = [
    *_column("gaussian", "scale", COMPUTED, {
        "int3_narrow": ".6507697039968386", "int4_narrow": ".3534113155714074", "int8_narrow": ".0308700860403491",
        "int2": "1.048385262485013", "int3": ".6018242266853021", "int4": ".3386079357151854",
        "int8": ".0307655785427688"}),
    *_column("gaussian", "mse", COMPUTED, {
        "int4_narrow": ".0128893859107019", "int8_narrow": "8.83080307179e-5", "int2": ".149431065092988",
        "int3": ".0406382465927904", "int4": ".0118640377104254", "int8": "8.77069219719e-5"}),
    *_column("laplace", "scale", COMPUTED, {
        "int3_narrow": ".821752559683989", "int4_narrow": ".4868849631760547", "int8_narrow": ".0550243320994044",
        "int2": "1.214126469660696", "int3": ".7624524712158680", "int4": ".4676469708354303",
        "int8": ".0548511466641668"}),
    *_column("laplace", "mse", COMPUTED, {
        "int4_narrow": ".0273952221904092", "int8_narrow": "3.03301705764e-4", "int2": ".206994656781376",
        "int3": ".0719945609467081", "int4": ".0252602756926043", "int8": "3.01364193322e-4"}),
    *_column("gaussian", "sqnr_db", COMPUTED, _bits("", 2, "8.256 13.911 19.258 24.527 29.818 35.163 40.570")),
]  # fmt: skip

FREE_SHIFT = [
    # By symmetry the free shift of a two's complement grid on a Gaussian is half a step, and its MSE that of midrise.
    *_column("gaussian", "mse", CLOSED_FORM, {
        "int2": ".1188460503840772", "int4": ".0115428844313509", "int8": "8.76861857840938e-05"}, shift="optimal"),
    *_column("gaussian", "shift_over_scale", CLOSED_FORM, dict.fromkeys(("int2", "int4", "int8"), "0.5"),
        shift="optimal"),
    # On a Laplace density two mirrored optima are better than midrise.
    *_column("laplace", "mse", COMPUTED, {
        "int2": ".194461916681003", "int4": ".0251482143704779", "int8": ".000301357706889065"}, shift="optimal"),
    *_column("laplace", "shift_over_scale", COMPUTED, {
        "int2": ".2695153328", "int4": ".1524832724", "int8": ".08620542889"}, shift="optimal"),
]  # fmt: skip

MODEL = [
    *_column("gaussian", "clip", STATQAT, _bits(
        "_midrise", 2, "1.518168 2.069278 2.522539 2.919537 3.279209 3.611514 3.922340"), model="high_resolution"),
    *_column("gaussian", "sqnr_db", STATQAT, _bits(
        "_midrise", 2, "8.895 14.143 19.336 24.553 29.826 35.165 40.570") | {"e2m1": "18.813", "e3m0": "13.967"},
        model="high_resolution"),
    *_column("gaussian", "sqnr_db", QUANT_MP, {
        "e3m0": "13.966", "e2m1": "18.812", "int4_midrise": "19.334", "int3_midrise": "14.141",
        "int2_midrise": "8.891"}, units=5, model="high_resolution"),
    *_column("gaussian", "clip", COMPUTED, _aciq(
        0, ".765775066233687904 1.23990527098445578 1.71063516811404367 2.15159274474034653 2.55913646197533684"
        " 2.93620061210844456 3.28691421521375676 3.61511421526278091 3.92403548988078223"), model="high_resolution"),
    *_column("gaussian", "clip", ACIQ_NOTEBOOK, _aciq(
        2, "1.710635 2.151593 2.559136 2.936201 3.286914 3.615114 3.924033"), units=3, model="high_resolution"),
    *_column("gaussian", "clip", ACIQ_CONSTANTS, _aciq(2, "1.71 2.15 2.55 2.93 3.28 3.61 3.92"),
        model="high_resolution"),
    # In units of b = std / sqrt(2): W(3 4^M) with Lambert's W.
    *_column("laplace", "clip_over_b", COMPUTED, _aciq(
        0, "1.04990889496403996 1.86281686443235795 2.83068298937023382 3.8972294649451027 5.02864013623621312"
        " 6.20476633401332108 7.41312621384357038 8.64561998403442367 9.89675977001752769"), model="high_resolution"),
    *_column("laplace", "clip_over_b", ACIQ_NOTEBOOK, _aciq(
        2, "2.83068299 3.89722946 5.02864014 6.20476633 7.41312622 8.64561995 9.89675982"), units=10,
        model="high_resolution"),
    *_column("laplace", "clip_over_b", ACIQ_CONSTANTS, _aciq(2, "2.83 3.89 5.03 6.2 7.41 8.64 9.89"),
        model="high_resolution"),
]  # fmt: skip

FLOATS = [
    *_column("gaussian", "scale", COMPUTED, {
        "e2m1": ".4870791785622826", "e3m0": ".2621012295678631", "e2m3": ".4996720287637542",
        "e3m2": ".1622057024202131"}),
    *_column("gaussian", "mse", COMPUTED, {
        "e2m1": ".0126849041387099", "e3m0": ".0377449895450580", "e2m3": ".000829147061939817",
        "e3m2": ".00276610655976950", "e4m3fn": "6.98749480250e-4", "e5m2": "2.765568815814e-3"}),
    *_column("gaussian", "sqnr_db", COMPUTED, {
        "e2m1": "18.96713", "e3m0": "14.23141", "e2m3": "30.81368", "e3m2": "25.58131", "e4m3fn": "31.556785",
        "e5m2": "25.582155", "nf4": "20.0439"}),
    *_column("gaussian", "clip", COMPUTED, {"nf4": "2.863063"}),
    *_column("laplace", "scale", COMPUTED, {
        "e2m1": ".6911410910959451", "e3m0": ".3899173852467379", "e2m3": ".8222745348103081",
        "e3m2": ".3454893531484268"}),
    *_column("laplace", "mse", COMPUTED, {
        "e2m1": ".0184910125149896", "e3m0": ".0383005448084539", "e2m3": ".00139751314228541",
        "e3m2": ".00278550230783031", "e4m3fn": "7.01987374649e-4", "e5m2": "2.780191275352e-3"}),
    # All codes finite, as in "FP8 Quantization: The Power of the Exponent" (arXiv 2208.09225).
    *_column("gaussian", "mse", COMPUTED, {
        ("float", 5, 2): "2.7656e-3", ("float", 4, 3): "6.9875e-4", ("float", 3, 4): "1.7520e-4",
        ("float", 2, 5): "5.4121e-5"}),
    *_column("gaussian", "clip", COMPUTED, {("float", 3, 4): "5.10590", ("float", 2, 5): "4.35216"}),
    *_column("gaussian", "scale", QUEST, {"e2m1": ".4870794"}, units=4),
    *_column("gaussian", "mse", QUEST, {"e2m1": ".0126849041"}),
    # QuEST's end points are optimal to 3e-5 up to five bits (1e-6 up to three), and not beyond.
    *_column("gaussian", "clip", QUEST, {
        "int2_midrise": "1.49353", "int3_midrise": "2.05107", "int4_midrise": "2.51393", "int5_midrise": "2.91609"},
        units=10),
    *_column("gaussian", "sqnr_db", SAYOOD, {
        ("uniform", 2): "4.40", ("uniform", 4): "9.24", ("uniform", 6): "12.18", ("uniform", 8): "14.27",
        "int4_midrise": "19.36", "int5_midrise": "24.56"}, units=15),
    *_column("laplace", "sqnr_db", SAYOOD, {
        ("uniform", 2): "3.00", ("uniform", 4): "7.05", ("uniform", 6): "9.56", ("uniform", 8): "11.39",
        "int4_midrise": "15.84", "int5_midrise": "20.46"}, units=15),
]  # fmt: skip

OPTIMA = [
    *SYMMETRIC_GAUSSIAN,
    *SYMMETRIC_LAPLACE,
    *SYMMETRIC_UNIFORM,
    *INTEGERS,
    *FREE_SHIFT,
    *MODEL,
    *FLOATS,
]

# QuEST's own MSEs hold at its own end points, also where those are not optimal; the one of 6 bits to 2.5e-10 only
# (.00104004757932 there, by make_errors.py).
ERRORS = [
    ErrorAt("binary", ".7978845608028654", ".3633802276324186", QUEST),
    ErrorAt("int2_midrise", "1.493534520977036", ".11884605038769", QUEST),
    ErrorAt("int3_midrise", "2.0510679063024964", ".03743965939152", QUEST),
    ErrorAt("int4_midrise", "2.5139324513630887", ".01154288450032", QUEST),
    ErrorAt("int5_midrise", "2.9160897658147453", ".00349521137611", QUEST),
    ErrorAt("int6_midrise", "3.276597435983721", ".00104004757958", QUEST, units=30),
    ErrorAt("int7_midrise", "3.6010436416224247", ".00030436603843", QUEST),
    ErrorAt("int8_midrise", "3.884997364699907", ".00008782117814", QUEST),
    ErrorAt("e2m1", "2.922476903607972", ".01268490413872", QUEST),
]

CODEBOOKS = [
    Codebook("gaussian", 2, ".363380", COMPUTED, ("0.79788456080287",)),
    Codebook("gaussian", 3, ".19017403925", COMPUTED),
    Codebook("gaussian", 4, ".1174818478293", COMPUTED, (".4527800346", "1.5104176085")),
    Codebook("gaussian", 5, ".07994112708828", COMPUTED),
    Codebook("gaussian", 6, ".05797765371507", COMPUTED),
    Codebook("gaussian", 7, ".04400038249862", COMPUTED),
    Codebook("gaussian", 8, ".0345477607885", COMPUTED, (".2450941789", ".7560052812", "1.3439092785", "2.1519457045")),
    Codebook(
        "gaussian",
        16,
        ".009501008008192",
        COMPUTED,
        (
            *(".1283950299", ".3880482995", ".6567591185", ".9423404565"),
            *("1.2562311973", "1.618046386", "2.0690172265", "2.732589571"),
        ),
    ),
    Codebook("gaussian", 32, ".00250466836", COMPUTED),
    Codebook("gaussian", 2, ".3634", LLOYD_MAX_SECOND_HAND),
    Codebook("gaussian", 4, ".1175", LLOYD_MAX_SECOND_HAND),
    Codebook("gaussian", 8, ".03454", LLOYD_MAX_SECOND_HAND),
    # Printed .009497 and .002499: 4e-4 and 2e-3 below what any quantizer reaches.
    Codebook("gaussian", 16, ".009497", LLOYD_MAX_SECOND_HAND, units=5),
    Codebook("gaussian", 32, ".002499", LLOYD_MAX_SECOND_HAND, units=7),
    Codebook("laplace", 2, "0.5", CLOSED_FORM, ("0.70710678118655",)),
    Codebook("laplace", 3, "0.264241117657115", CLOSED_FORM, ("1.41421356237309",)),
    Codebook("laplace", 4, ".176194881054", COMPUTED, (".4197557398", "1.8339693021")),
    Codebook("laplace", 8, ".05447598791395", COMPUTED),
    Codebook("laplace", 16, ".01537252705987", COMPUTED),
    Codebook("laplace", 32, ".00410217999", COMPUTED),
]

# Local minima of the MSE of E3M0 on a Gaussian over the clip, best first. The clips are those of optima.json: the
# authors' 8.3166 and 15.688 came from a scan and are off by 7e-4 and 1e-3.
E3M0_MINIMA = (("4.1936", ".0377450"), ("8.3173", ".0378556"), ("2.4394", ".038407"), ("15.6890", ".038650"))
