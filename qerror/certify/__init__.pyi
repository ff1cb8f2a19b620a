# What `qerror.certify` offers, once: type checkers, editors and `_lazy.attach` read it.
from .blocks import certify_block_error as certify_block_error
from .certificate import Certificate as Certificate
from .certificate import CertifiedBlocks as CertifiedBlocks
from .certificate import CertifiedCodebook as CertifiedCodebook
from .certificate import CertifiedPair as CertifiedPair
from .certificate import OpenError as OpenError
from .certificate import Proof as Proof
from .checker import verify as verify
from .codebook import certify_codebook as certify_codebook
from .plane import certify_pair as certify_pair
from .proof import certify as certify
