"""A stand-in for a GPU, where a test asks only whether it is one."""

__all__ = ["FakeGpu"]


class FakeGpu(str):
    """A device that computes on the processor and says that it is a GPU."""

    type = "cuda"
