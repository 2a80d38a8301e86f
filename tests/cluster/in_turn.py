"""Jobs one after the other in one process and on one cluster: starting these takes longer than the jobs.

python -m tests.cluster.in_turn '[["jobs/ict_digits.py", "--steps", "3"], ...]'
"""

import json
import runpy
import sys

from cm_ray.cluster.runtime.connect import connected

if __name__ == "__main__":
    with connected():
        for words in json.loads(sys.argv[1]):
            sys.argv = words
            try:
                runpy.run_path(words[0], run_name="__main__")
            except SystemExit as ended:
                if ended.code:
                    raise
