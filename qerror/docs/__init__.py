"""The documentation as pages of one folder that any browser opens, without network: ``python -m qerror.docs FOLDER``.

What is written by hand lies in `pages`; the reference, the formats, the commands, the audit and the notebooks are made
from the code. Needs the extra ``docs`` (markdown-it-py, latex2mathml).
"""
