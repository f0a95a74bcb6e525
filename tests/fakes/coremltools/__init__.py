"""What unet-edge uses of coremltools 9 on a Mac, with ONNX Runtime where Core ML would be.

Only a child process meets it, through PYTHONPATH. It is as strict as the real one is, or as Core ML behind it. The
variable FAKE_COREML holds JSON: "<compute unit> <step>" -> what goes wrong there: kill, hang, raise, print, chatter.
"""

import json
import os
import signal
import sys
import time
from enum import Enum

if os.environ.get("FAKE_COREML_MISSING"):
    raise ModuleNotFoundError("No module named 'coremltools'", name="coremltools")

__version__ = "9.0"


class ComputeUnit(Enum):
    ALL = 1
    CPU_AND_GPU = 2
    CPU_ONLY = 3
    CPU_AND_NE = 4


def step(units, name):
    """Do what the test asked for at this step."""
    behaviour = json.loads(os.environ.get("FAKE_COREML", "{}"))
    what = behaviour.get(f"{units} {name}") or behaviour.get(f"* {name}")
    if what == "kill":
        os.write(2, b"ANECCompile() FAILED\n")
        os.kill(os.getpid(), signal.SIGKILL)
    elif what == "hang":
        time.sleep(1000)
    elif what == "raise":
        raise RuntimeError(f"{name} failed: error code: -14\nand more lines")
    elif what == "exit":
        os._exit(3)
    elif what == "chatter":
        os.write(1, b"a framework's own words\n")
        print("and Python's")
        sys.stdout.flush()


from . import models  # noqa: E402, F401
