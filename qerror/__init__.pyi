from . import (
    casting as casting,
)
from . import (
    checkpoints as checkpoints,
)
from . import (
    densities as densities,
)
from . import (
    errors as errors,
)
from . import (
    evidence as evidence,
)
from . import (
    files as files,
)
from . import (
    grids as grids,
)
from . import (
    literature as literature,
)
from . import (
    plotting as plotting,
)
from . import (
    rules as rules,
)
from . import (
    samples as samples,
)
from . import (
    search as search,
)
from . import (
    symbolic as symbolic,
)
from . import (
    tables as tables,
)
from . import (
    tensors as tensors,
)
from . import (
    testing as testing,
)
from . import (
    training as training,
)
from ._version import __version__ as __version__
from .casting.cast import dequantize as dequantize
from .casting.cast import fake_quantize as fake_quantize
from .casting.cast import quantize as quantize
from .densities.adapters import from_pdf as from_pdf
from .densities.adapters import from_scipy as from_scipy
from .densities.base import Density as Density
from .densities.combined import Mixture as Mixture
from .densities.estimation import fit_density as fit_density
from .densities.histogram import Histogram as Histogram
from .densities.named import (
    density as density,
)
from .densities.parametric import (
    Gaussian as Gaussian,
)
from .densities.parametric import (
    Laplace as Laplace,
)
from .densities.parametric import (
    Logistic as Logistic,
)
from .densities.parametric import (
    Uniform as Uniform,
)
from .densities.rectified import Rectified as Rectified
from .densities.shaped import GeneralizedGaussian as GeneralizedGaussian
from .densities.shaped import StudentT as StudentT
from .errors.dot_product import dot_product_error as dot_product_error
from .errors.exact import (
    code_entropy as code_entropy,
)
from .errors.exact import (
    code_probabilities as code_probabilities,
)
from .errors.exact import (
    quantization_error as quantization_error,
)
from .evidence.dot_product import simulate_dot_product as simulate_dot_product
from .evidence.simulation import simulate as simulate
from .evidence.verification import VerificationReport as VerificationReport
from .evidence.verification import verify as verify
from .grids.block_formats import BlockFormat as BlockFormat
from .grids.families import float_grid as float_grid
from .grids.families import int_grid as int_grid
from .grids.formats import formats as formats
from .grids.formats import grid as grid
from .grids.grid import Grid as Grid
from .results import (
    DotProductError as DotProductError,
)
from .results import (
    ErrorTerms as ErrorTerms,
)
from .results import (
    FitResult as FitResult,
)
from .results import (
    Minimum as Minimum,
)
from .results import (
    ScaleResult as ScaleResult,
)
from .results import (
    SimulatedTerms as SimulatedTerms,
)
from .results import (
    StandardErrors as StandardErrors,
)
from .results import (
    Status as Status,
)
from .samples.empirical import Empirical as Empirical
from .search.lloyd_max import lloyd_max as lloyd_max
from .search.optimal import excess_db as excess_db
from .search.optimal import optimal_scale as optimal_scale
from .tables.build import scale_table as scale_table
from .tables.reading import load_table as load_table
from .tables.table import ScaleTable as ScaleTable
from .tensors.fitting import evaluate as evaluate
from .tensors.fitting import fit as fit
