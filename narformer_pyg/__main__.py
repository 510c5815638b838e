"""``python -m narformer_pyg``, the same as the command ``narformer``."""

import sys

from narformer_pyg.cli import main

sys.exit(main())
