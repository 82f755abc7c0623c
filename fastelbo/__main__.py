"""``python -m fastelbo``."""

import sys

from fastelbo._cli import main

if __name__ == "__main__":
    sys.exit(main())
