"""One thread: the networks here are small, and results must not depend on what else the machine is doing."""

import os
import signal

os.environ["OMP_NUM_THREADS"] = "1"  # for the processes that tests start
os.environ["MKL_NUM_THREADS"] = "1"

import torch

torch.set_num_threads(1)

signal.signal(signal.SIGINT, signal.default_int_handler)  # a shell's background jobs begin with it ignored
