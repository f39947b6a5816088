"""`python -m tunewright`; `python -P -m tunewright` in a folder that comes from somebody else.

Python itself imports some modules of its own library before this file runs, from the working folder if they lie there;
the command `tunewright` and `-P` look for nothing in it.
"""

import os
import sys

if not sys.flags.safe_path and sys.path[0] in ("", os.getcwd()):
    del sys.path[0]  # the working folder: a json.py in it is no part of this program

from tunewright.cli import main

main()
