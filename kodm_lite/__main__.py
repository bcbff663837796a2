"""``python -m kodm_lite``: the command ``kodm-lite``, also where that is not on the path."""

import sys

from kodm_lite.cli import main

if __name__ == "__main__":
    sys.exit(main())
