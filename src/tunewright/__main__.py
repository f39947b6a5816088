"""`python -m tunewright`; `python -P -m tunewright` in a stranger's folder.

Python imports some modules of the standard library before this file runs, from the working folder if it contains them;
the command `tunewright` and `-P` never look there.
"""

import os
import sys

if not sys.flags.safe_path and sys.path[0] in ("", os.getcwd()):
    del sys.path[0]  # the working folder: a json.py in it is not part of this program

from tunewright.cli import main

main()
